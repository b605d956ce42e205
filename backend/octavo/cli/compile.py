"""``octavo compile``: kernels for a GPU that need not be here, into the cache; for images and shared volumes."""

from pathlib import Path
from typing import Annotated

import typer

from octavo.cli.local import REPOSITORY, plain_errors


def compile(
    capability: Annotated[str, typer.Option(help="The GPU's compute capability, as 9.0 for an H100 or H200.")],
    model_repository: Annotated[
        list[Path] | None,
        typer.Option(
            "--model-repository", "--model-store", help="A folder of models, or one bare snapshot or .gguf file. Repeatable."
        ),
    ] = None,
) -> None:
    """Compile what engines of these models launch on a GPU, into TRITON_CACHE_DIR, so that no start has to."""
    from octavo.logs import LogSettings, configure_logs
    from octavo.repository.repository import ModelRepository
    from octavo.runtime.ahead import compile_for

    major, _, minor = capability.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise typer.BadParameter(f"must be like 9.0, got {capability!r}.", param_hint="--capability")
    configure_logs("octavo compile", LogSettings())
    with plain_errors():
        repository = ModelRepository(model_repository or [REPOSITORY])
        for name in repository.names():
            for spec in repository.spec(name):
                compile_for(spec.engine, (int(major), int(minor)))
