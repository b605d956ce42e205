"""``octavo serve``: flags under tritonserver's names, mapped to ``ServeOptions``."""

from typing import Any

import typer

from octavo.cli import flags
from octavo.serving.options import ServeOptions

_DEFAULT = ServeOptions(model_repository=())


def serve(
    model_repository: flags.Repositories,
    model_name: flags.ModelName = _DEFAULT.model_name,
    model_control_mode: flags.ControlMode = _DEFAULT.model_control_mode,
    load_model: flags.LoadModel = None,
    repository_poll_secs: flags.PollSecs = _DEFAULT.repository_poll_secs,
    model_load_thread_count: flags.LoadThreads = _DEFAULT.model_load_thread_count,
    strict_readiness: flags.StrictReadiness = _DEFAULT.strict_readiness,
    exit_on_error: flags.ExitOnError = _DEFAULT.exit_on_error,
    exit_timeout_secs: flags.ExitTimeout = _DEFAULT.exit_timeout_secs,
    engine_timeout_secs: flags.EngineTimeout = _DEFAULT.engine_timeout_secs,
    grpc_address: flags.GrpcAddress = _DEFAULT.grpc_address,
    grpc_port: flags.GrpcPort = _DEFAULT.grpc_port,
    http_address: flags.HttpAddress = _DEFAULT.http_address,
    http_port: flags.HttpPort = _DEFAULT.http_port,
    metrics_address: flags.MetricsAddress = _DEFAULT.metrics_address,
    metrics_port: flags.MetricsPort = _DEFAULT.metrics_port,
    front_ends: flags.FrontEnds = _DEFAULT.front_ends,
    grpc_use_ssl: flags.GrpcUseSsl = _DEFAULT.grpc_use_ssl,
    grpc_use_ssl_mutual: flags.GrpcUseSslMutual = _DEFAULT.grpc_use_ssl_mutual,
    grpc_server_cert: flags.GrpcServerCert = _DEFAULT.grpc_server_cert,
    grpc_server_key: flags.GrpcServerKey = _DEFAULT.grpc_server_key,
    grpc_root_cert: flags.GrpcRootCert = _DEFAULT.grpc_root_cert,
    http_use_ssl: flags.HttpUseSsl = _DEFAULT.http_use_ssl,
    http_use_ssl_mutual: flags.HttpUseSslMutual = _DEFAULT.http_use_ssl_mutual,
    http_server_cert: flags.HttpServerCert = _DEFAULT.http_server_cert,
    http_server_key: flags.HttpServerKey = _DEFAULT.http_server_key,
    http_root_cert: flags.HttpRootCert = _DEFAULT.http_root_cert,
    auth_token_file: flags.TokenFile = _DEFAULT.auth_token_file,
    auth_open_groups: flags.OpenGroups = _DEFAULT.auth_open_groups,
    grpc_restricted_protocol: flags.GrpcRestricted = None,
    http_restricted_api: flags.HttpRestricted = None,
    grpc_max_message_size: flags.GrpcMaxMessage = _DEFAULT.grpc_max_message_size,
    grpc_max_metadata_size: flags.GrpcMaxMetadata = _DEFAULT.grpc_max_metadata_size,
    grpc_max_concurrent_streams: flags.GrpcMaxStreams = _DEFAULT.grpc_max_concurrent_streams,
    grpc_max_stream_requests: flags.GrpcMaxRequests = _DEFAULT.grpc_max_stream_requests,
    grpc_keepalive_time: flags.KeepaliveTime = _DEFAULT.grpc_keepalive_time,
    grpc_keepalive_timeout: flags.KeepaliveTimeout = _DEFAULT.grpc_keepalive_timeout,
    grpc_keepalive_permit_without_calls: flags.KeepaliveIdle = _DEFAULT.grpc_keepalive_permit_without_calls,
    grpc_http2_max_pings_without_data: flags.PingsWithoutData = _DEFAULT.grpc_http2_max_pings_without_data,
    grpc_http2_min_recv_ping_interval_without_data: flags.PingInterval = (_DEFAULT.grpc_http2_min_recv_ping_interval_without_data),
    grpc_http2_max_ping_strikes: flags.PingStrikes = _DEFAULT.grpc_http2_max_ping_strikes,
    grpc_max_connection_age: flags.ConnectionAge = _DEFAULT.grpc_max_connection_age,
    grpc_max_connection_age_grace: flags.ConnectionGrace = _DEFAULT.grpc_max_connection_age_grace,
    grpc_infer_response_compression_level: flags.Compression = _DEFAULT.grpc_infer_response_compression_level,
    http_max_input_size: flags.HttpMaxInput = _DEFAULT.http_max_input_size,
    http_cors_origin: flags.HttpCorsOrigin = None,
    http_page: flags.HttpPage = _DEFAULT.http_page,
    debug_page: flags.DebugPage = _DEFAULT.debug_page,
    http_max_header_size: flags.HttpMaxHeader = _DEFAULT.http_max_header_size,
    max_request_inputs: flags.MaxInputs = _DEFAULT.max_request_inputs,
    max_request_outputs: flags.MaxOutputs = _DEFAULT.max_request_outputs,
    max_input_elements: flags.MaxElements = _DEFAULT.max_input_elements,
    max_samples: flags.MaxSamples = _DEFAULT.max_samples,
    max_stop_strings: flags.MaxStops = _DEFAULT.max_stop_strings,
    max_stop_length: flags.MaxStopLength = _DEFAULT.max_stop_length,
    max_response_buffer_size: flags.MaxResponseBuffer = _DEFAULT.max_response_buffer_size,
    trace_config: flags.TraceConfig = None,
    log_verbose: flags.LogVerbose = _DEFAULT.log_verbose,
    log_format: flags.LogFormatFlag = _DEFAULT.log_format,
) -> None:
    """Serve the models of a repository over gRPC, HTTP and the OpenAI API until SIGTERM."""
    options = _options(locals())
    from octavo.serving.supervisor import run

    raise typer.Exit(run(options))


def _options(given: dict[str, Any]) -> ServeOptions:
    """The flags have the names of the options; what can be repeated is a list or None."""
    repeated = {
        "model_repository",
        "load_model",
        "grpc_restricted_protocol",
        "http_restricted_api",
        "http_cors_origin",
        "trace_config",
    }
    fields: Any = {name: tuple(value or ()) if name in repeated else value for name, value in given.items()}
    return ServeOptions(**fields)
