"""``ServeOptions``: how one server is started, under tritonserver's flag names. Knows no process and no socket."""

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from octavo.config import DEFAULT_LIMITS, RequestLimits
from octavo.logs import LogFormat


class BadFlag(Exception):
    """A flag whose value cannot be used; the text is for the operator and shows no secret."""


class ModelControlMode(StrEnum):
    """Who decides what is loaded: the repository at start (none) or whenever it changes (poll), or the caller (explicit)."""

    NONE = "none"
    POLL = "poll"
    EXPLICIT = "explicit"


class CompressionLevel(StrEnum):
    """How much gRPC compresses responses, for clients that accept it; gRPC chooses the algorithm."""

    NONE = "none"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """All that ``octavo serve`` can be told, under its flags' names.

    ``model_name`` names a repository path that is one bare snapshot or weights file. ``load_model`` lists what is loaded at
    start in explicit mode, ``*`` for all. ``front_ends`` 0 chooses one for every eight cores. A port 0 takes any free one.
    ``exit_timeout_secs`` bounds how long open requests may go on after SIGTERM, ``engine_timeout_secs`` how long a step of an
    engine may take, or a front end be silent, before it is ended and started again (and about how long the supervisor may be silent
    before front ends call the server dead). ``grpc_max_message_size`` counts bytes after
    decompression, and so does ``http_max_input_size``. A stream with ``grpc_max_stream_requests`` open requests is not read
    further until one of them ends. Once a client leaves ``max_response_buffer_size`` bytes of a stream's answers unread, those
    that go on are cancelled. Web pages of an ``http_cors_origin`` may call HTTP; ``*`` is all of them. ``http_page``: a page
    for people at ``/``. ``debug_page``: ``/debug`` on the metrics port.
    Keepalive times and connection ages are milliseconds; a client may ping every 10 s even on an idle connection.
    """

    model_repository: tuple[Path, ...]
    model_name: str | None = None
    model_control_mode: ModelControlMode = ModelControlMode.NONE
    load_model: tuple[str, ...] = ()
    repository_poll_secs: float = 15.0
    strict_readiness: bool = True
    exit_on_error: bool = True
    exit_timeout_secs: float = 30.0
    engine_timeout_secs: float = 120.0
    grpc_address: str = "0.0.0.0"
    grpc_port: int = 8001
    http_address: str = "0.0.0.0"
    http_port: int = 8000
    metrics_address: str = "0.0.0.0"
    metrics_port: int = 8002
    front_ends: int = 0
    model_load_thread_count: int = 4
    grpc_use_ssl: bool = False
    grpc_use_ssl_mutual: bool = False
    grpc_server_cert: Path | None = None
    grpc_server_key: Path | None = None
    grpc_root_cert: Path | None = None
    http_use_ssl: bool = False
    http_use_ssl_mutual: bool = False
    http_server_cert: Path | None = None
    http_server_key: Path | None = None
    http_root_cert: Path | None = None
    auth_token_file: Path | None = None
    auth_open_groups: str = "health,page"
    grpc_restricted_protocol: tuple[str, ...] = ()
    http_restricted_api: tuple[str, ...] = ()
    grpc_keepalive_time: int = 60_000
    grpc_keepalive_timeout: int = 20_000
    grpc_keepalive_permit_without_calls: bool = True
    grpc_http2_max_pings_without_data: int = 2
    grpc_http2_min_recv_ping_interval_without_data: int = 10_000
    grpc_http2_max_ping_strikes: int = 2
    grpc_max_connection_age: int | None = None
    grpc_max_connection_age_grace: int | None = None
    grpc_infer_response_compression_level: CompressionLevel = CompressionLevel.NONE
    grpc_max_metadata_size: int = 16 * 2**10
    grpc_max_message_size: int = 64 * 2**20
    grpc_max_concurrent_streams: int = 4096
    grpc_max_stream_requests: int = 1024
    http_max_input_size: int = 64 * 2**20
    http_max_header_size: int = 16 * 2**10
    http_cors_origin: tuple[str, ...] = ()
    http_page: bool = True
    debug_page: bool = False
    max_response_buffer_size: int = 16 * 2**20
    max_request_inputs: int = DEFAULT_LIMITS.inputs
    max_request_outputs: int = DEFAULT_LIMITS.outputs
    max_input_elements: int = DEFAULT_LIMITS.elements
    max_samples: int = DEFAULT_LIMITS.samples
    max_stop_strings: int = DEFAULT_LIMITS.stops
    max_stop_length: int = DEFAULT_LIMITS.stop_characters
    trace_config: tuple[str, ...] = ()
    log_verbose: bool = False
    log_format: LogFormat = LogFormat.DEFAULT

    @property
    def request_limits(self) -> RequestLimits:
        """What no request may go beyond."""
        return RequestLimits(
            inputs=self.max_request_inputs,
            outputs=self.max_request_outputs,
            elements=self.max_input_elements,
            samples=self.max_samples,
            stops=self.max_stop_strings,
            stop_characters=self.max_stop_length,
        )

    @property
    def num_front_ends(self) -> int:
        """How many front-end processes to run."""
        return self.front_ends or max(1, (os.cpu_count() or 1) // 8)
