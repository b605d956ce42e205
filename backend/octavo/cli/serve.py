"""``octavo serve``: flags under tritonserver's names, mapped to ``ServeOptions``."""

from pathlib import Path
from typing import Annotated

import typer

from octavo.serving.options import ModelControlMode, ServeOptions


def serve(
    model_repository: Annotated[
        list[Path],
        typer.Option(
            "--model-repository", "--model-store", help="A folder of models, or one bare snapshot or .gguf file. Repeatable."
        ),
    ],
    model_name: Annotated[str | None, typer.Option(help="The name of the model when the repository is one bare snapshot.")] = None,
    model_control_mode: Annotated[
        ModelControlMode, typer.Option(help="none: load everything at start; explicit: load and unload by RPC.")
    ] = ModelControlMode.NONE,
    load_model: Annotated[
        list[str] | None, typer.Option(help="A model to load at start in explicit mode, * for all. Repeatable.")
    ] = None,
    strict_readiness: Annotated[bool, typer.Option(help="Ready only when every model is.")] = True,
    exit_on_error: Annotated[bool, typer.Option(help="Exit when a model fails to load at start.")] = True,
    exit_timeout_secs: Annotated[float, typer.Option(min=0, help="Seconds that open requests may go on after SIGTERM.")] = 30.0,
    grpc_address: Annotated[str, typer.Option(help="Address of the gRPC service.")] = "0.0.0.0",
    grpc_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the gRPC service; 0 takes a free one.")] = 8001,
    http_address: Annotated[str, typer.Option(help="Address of the HTTP service.")] = "0.0.0.0",
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the HTTP service; 0 takes a free one.")] = 8000,
    metrics_address: Annotated[str, typer.Option(help="Address of /metrics.")] = "0.0.0.0",
    metrics_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of /metrics; 0 takes a free one.")] = 8002,
    front_ends: Annotated[int, typer.Option(min=0, help="Front-end processes; 0 is one for every eight cores.")] = 0,
    grpc_max_message_size: Annotated[int, typer.Option(min=1, help="Largest message in bytes, after decompression.")] = 64 * 2**20,
    grpc_max_concurrent_streams: Annotated[int, typer.Option(min=1, help="Calls at once on one connection.")] = 4096,
    grpc_max_stream_requests: Annotated[
        int, typer.Option(min=1, help="Open requests on one stream before it is read further.")
    ] = 1024,
    http_max_input_size: Annotated[int, typer.Option(min=1, help="Largest body over HTTP in bytes, unpacked.")] = 64 * 2**20,
    log_verbose: Annotated[bool, typer.Option(help="Log every request.")] = False,
) -> None:
    """Serve the models of a repository until SIGTERM."""
    from octavo.serving.supervisor import run

    options = ServeOptions(
        model_repository=tuple(model_repository),
        model_name=model_name,
        model_control_mode=model_control_mode,
        load_model=tuple(load_model or ()),
        strict_readiness=strict_readiness,
        exit_on_error=exit_on_error,
        exit_timeout_secs=exit_timeout_secs,
        grpc_address=grpc_address,
        grpc_port=grpc_port,
        http_address=http_address,
        http_port=http_port,
        metrics_address=metrics_address,
        metrics_port=metrics_port,
        front_ends=front_ends,
        grpc_max_message_size=grpc_max_message_size,
        grpc_max_concurrent_streams=grpc_max_concurrent_streams,
        grpc_max_stream_requests=grpc_max_stream_requests,
        http_max_input_size=http_max_input_size,
        log_verbose=log_verbose,
    )
    raise typer.Exit(run(options))
