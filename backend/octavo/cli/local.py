"""What the commands that load a model of their own have in common: their flags, and how they say that it cannot be."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

if TYPE_CHECKING:
    from octavo.offline.thread import EngineThread
    from octavo.repository.direct import DirectModel

REPOSITORY = Path("model_repository")
INTERRUPTED = 130
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


class Loaded(NamedTuple):
    """A running engine, and all names of its model."""

    thread: "EngineThread"
    names: list[str]


@contextmanager
def loaded(model: str | None, settings: str, command: str) -> "Iterator[Loaded]":
    """The engine of ``--model`` and ``--settings``, with ``plain_errors``."""
    from msgspec.structs import replace

    from octavo.offline.engine import UNLIMITED
    from octavo.offline.thread import EngineThread

    with plain_errors():
        config, names = _chosen(model, settings, command)
        with closing(EngineThread(replace(config, max_queue_size=UNLIMITED))) as thread:
            yield Loaded(thread, names)


@contextmanager
def plain_errors() -> "Iterator[None]":
    """Errors that a user can mend end the command with their text."""
    from octavo.errors import OctavoError

    try:
        yield
    except OctavoError as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(1) from None


def _chosen(model: str | None, settings: str, command: str) -> "DirectModel":
    from octavo.repository.direct import DirectModel, direct_model
    from octavo.repository.repository import ModelRepository

    arguments = parsed_settings(settings)
    if model is not None:
        return direct_model({**arguments, "model": model}, command)
    if arguments:
        raise typer.BadParameter("needs --model: a model of a repository has settings of its own.", param_hint="--settings")
    models = ModelRepository([REPOSITORY]) if REPOSITORY.is_dir() else None
    if models is None or not models.names():
        raise typer.BadParameter("must say which model to load: there is none in ./model_repository.", param_hint="--model")
    spec = models.spec(models.names()[0])[-1]
    return DirectModel(spec.engine, [spec.name, *spec.aliases])


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
