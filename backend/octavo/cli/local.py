"""What the commands that load a model of their own have in common: their flags, and how they say that it cannot be."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from octavo.config import EngineConfig
    from octavo.offline.thread import EngineThread

REPOSITORY = Path("model_repository")
Model = Annotated[
    str | None,
    typer.Option(
        help="A folder, a .gguf file, a Hugging Face id or package://distribution/file; by default the first of ./model_repository."
    ),
]
Settings = Annotated[str, typer.Option(help="Engine arguments as in a model.json, as one JSON object; for --model only.")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Most new tokens; by default until the model ends or is full.")]
Temperature = Annotated[float, typer.Option(min=0, help="0 always takes the likeliest token.")]
TopP = Annotated[float, typer.Option(help="Only the likeliest tokens that have so much probability together.")]
Seed = Annotated[int | None, typer.Option(help="Makes an answer repeatable.")]


@contextmanager
def loaded(model: str | None, settings: str, command: str) -> "Iterator[EngineThread]":
    """The engine of ``--model`` and ``--settings``. Errors that a user can mend end the command with their text."""
    from octavo.errors import OctavoError
    from octavo.offline.thread import EngineThread

    try:
        thread = EngineThread(_config(model, settings, command))
        try:
            yield thread
        finally:
            thread.close()
    except OctavoError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None


def _config(model: str | None, settings: str, command: str) -> "EngineConfig":
    from octavo.repository.direct import direct_config
    from octavo.repository.repository import ModelRepository

    arguments = parsed_settings(settings)
    if model is not None:
        return direct_config({**arguments, "model": model}, command)
    if arguments:
        raise typer.BadParameter("needs --model: a model of a repository has settings of its own.", param_hint="--settings")
    models = ModelRepository([REPOSITORY]) if REPOSITORY.is_dir() else None
    if models is None or not models.names():
        raise typer.BadParameter("must say which model to load: there is none in ./model_repository.", param_hint="--model")
    return models.spec(models.names()[0])[-1].engine


def parsed_settings(settings: str) -> dict[str, object]:
    """The object in ``--settings``."""
    from octavo.repository.json_text import parse_json

    try:
        parsed = parse_json(settings)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--settings") from None
    if not isinstance(parsed, dict):
        raise typer.BadParameter("must be a JSON object.", param_hint="--settings")
    return parsed
