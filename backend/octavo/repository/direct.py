"""Engine arguments that a caller gives directly, as vLLM's ``LLM`` takes them -> ``DirectModel``. No repository is involved."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from octavo.config import EngineConfig
from octavo.errors import LoadFailed, shown
from octavo.repository.paths import can_reach
from octavo.repository.settings import read_settings
from octavo.repository.sources import PACKAGE, Asker, find_source
from octavo.repository.spec import engine_config

_ROOT = Path("/")


class DirectModel(NamedTuple):
    """The settings of one engine, and all names of its model, its own first."""

    engine: EngineConfig
    names: list[str]


def direct_model(arguments: Mapping[str, object], source: str) -> DirectModel:
    """What ``arguments`` ask for. ``source`` is what gives them, as it stands in a sentence. Raises ``LoadFailed``.

    Its ``model`` is a folder or file, relative to the working directory, or whatever else a ``model.json`` may name.
    """
    model = str(arguments["model"])
    if model.endswith(".gguf") and not model.startswith(PACKAGE) and not can_reach(Path(model)):
        raise LoadFailed(f"The file '{shown(Path(model).name)}' that {source} names does not exist or cannot be read.")
    name = _name(model)
    settings = read_settings({key: _plain(value) for key, value in arguments.items()}, name, source)
    found = find_source(settings, Asker(name, Path.cwd(), _ROOT, source))
    return DirectModel(engine_config(name, 1, settings, found, settings.device), [name, *settings.served_model_name])


def _name(model: str) -> str:
    """What to call the model: a folder or file by its own name, a hub repository by its id."""
    path = Path(model)
    if path.suffix == ".gguf":
        return path.stem
    return path.resolve().name if can_reach(path) else model


def _plain(value: object) -> object:
    """Paths and torch's dtypes as the strings that they stand for."""
    if isinstance(value, Path):
        return str(value)
    text = str(value) if type(value).__module__ == "torch" else ""
    return text.removeprefix("torch.") if text.startswith("torch.") else value
