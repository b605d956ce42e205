"""``channel_arguments``: the flags about connections and metadata, as gRPC's own arguments. Imports no gRPC."""

from octavo.serving.options import CompressionLevel, ServeOptions

MOST_PENDING = 32_768  # calls that have come and were not looked at yet, of all connections


def channel_arguments(options: ServeOptions) -> dict[str, int]:
    """Arguments of a gRPC server by name; times in milliseconds, sizes in bytes."""
    o = options
    arguments = {
        "grpc.max_receive_message_length": o.grpc_max_message_size,
        "grpc.max_send_message_length": -1,
        "grpc.max_concurrent_streams": o.grpc_max_concurrent_streams,
        # gRPC would refuse some at random from 1,000 on: as many as clients that all reconnect after a restart open at once.
        "grpc.server.max_pending_requests": MOST_PENDING,
        "grpc.server.max_pending_requests_hard_limit": MOST_PENDING,
        "grpc.max_metadata_size": o.grpc_max_metadata_size,
        "grpc.absolute_max_metadata_size": o.grpc_max_metadata_size,
        "grpc.keepalive_time_ms": o.grpc_keepalive_time,
        "grpc.keepalive_timeout_ms": o.grpc_keepalive_timeout,
        "grpc.keepalive_permit_without_calls": int(o.grpc_keepalive_permit_without_calls),
        "grpc.http2.max_pings_without_data": o.grpc_http2_max_pings_without_data,
        "grpc.http2.min_ping_interval_without_data_ms": o.grpc_http2_min_recv_ping_interval_without_data,
        "grpc.http2.max_ping_strikes": o.grpc_http2_max_ping_strikes,
        "grpc.default_compression_level": list(CompressionLevel).index(o.grpc_infer_response_compression_level),
    }
    if o.grpc_max_connection_age is not None:
        arguments["grpc.max_connection_age_ms"] = o.grpc_max_connection_age
    if o.grpc_max_connection_age_grace is not None:
        arguments["grpc.max_connection_age_grace_ms"] = o.grpc_max_connection_age_grace
    return arguments
