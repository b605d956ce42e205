"""``ServeOptions``: how one server is started, under tritonserver's flag names. Knows no process and no socket."""

import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class ModelControlMode(StrEnum):
    """Who decides what is loaded: the repository at start (none), or the caller of the repository RPCs (explicit)."""

    NONE = "none"
    EXPLICIT = "explicit"


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """All that ``octavo serve`` can be told.

    ``model_name`` names a repository path that is one bare snapshot or weights file. ``load_model`` lists what is loaded at
    start in explicit mode, ``*`` for all. ``front_ends`` 0 chooses one for every eight cores. A port 0 takes any free one.
    ``exit_timeout_secs`` bounds how long open requests may go on after SIGTERM. ``grpc_max_message_size`` counts bytes after
    decompression, and so does ``http_max_input_size``. A stream with ``grpc_max_stream_requests`` open requests is not read
    further until one of them ends.
    """

    model_repository: tuple[Path, ...]
    model_name: str | None = None
    model_control_mode: ModelControlMode = ModelControlMode.NONE
    load_model: tuple[str, ...] = ()
    strict_readiness: bool = True
    exit_on_error: bool = True
    exit_timeout_secs: float = 30.0
    grpc_address: str = "0.0.0.0"
    grpc_port: int = 8001
    http_address: str = "0.0.0.0"
    http_port: int = 8000
    metrics_address: str = "0.0.0.0"
    metrics_port: int = 8002
    front_ends: int = 0
    grpc_max_message_size: int = 64 * 2**20
    grpc_max_concurrent_streams: int = 4096
    grpc_max_stream_requests: int = 1024
    http_max_input_size: int = 64 * 2**20
    log_verbose: bool = False

    @property
    def num_front_ends(self) -> int:
        """How many front-end processes to run."""
        return self.front_ends or max(1, (os.cpu_count() or 1) // 8)
