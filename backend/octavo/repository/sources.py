"""Where weights come from: a reference in ``model.json`` -> a folder or file on disk, and its format. Nothing is imported or run.

A reference is an absolute path, a path relative to the version's folder, ``package://distribution/file``, or the id of a
repository on the Hugging Face hub.
"""

import errno
import importlib.metadata
import logging
import re
from pathlib import Path
from typing import NamedTuple

from octavo.config import WeightsFormat
from octavo.errors import LoadFailed, shown
from octavo.repository.engine_arguments import MODEL_JSON
from octavo.repository.paths import can_reach, inside
from octavo.repository.settings import LoadFormat, ModelSettings

log = logging.getLogger(__name__)

PACKAGE = "package://"
HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja")
_PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)


class Source(NamedTuple):
    """What an engine loads. ``weights`` is a folder, or one ``.gguf`` file; ``tokenizer`` a folder or a file."""

    weights: Path
    format: WeightsFormat
    tokenizer: Path


class Asker(NamedTuple):
    """Whose reference it is: the model's name, the folder that relative paths start from, and the one that they may not leave.

    In a repository these are the version's folder and the repository's. ``source``: where the reference is written. Without
    ``download`` a repository of the hub is looked for in the local cache alone.
    """

    model: str
    folder: Path
    root: Path
    source: str = MODEL_JSON
    download: bool = True

    @property
    def where(self) -> str:
        """``source``, as it stands in a sentence."""
        return f"{self.source} of model '{self.model}'"


def find_source(settings: ModelSettings, asker: Asker) -> Source:
    """The weights and the tokenizer that ``settings`` name. May download from the hub. Raises ``LoadFailed``."""
    place = locate(settings.model, settings.revision, settings, asker)
    weights, weights_format = detect(place, settings.load_format, asker.model)
    if settings.tokenizer is not None:
        revision = settings.tokenizer_revision or settings.revision
        return Source(weights, weights_format, locate(settings.tokenizer, revision, settings, asker))
    beside = place if (place / "tokenizer.json").is_file() else weights
    return Source(weights, weights_format, beside)


def locate(reference: str, revision: str | None, settings: ModelSettings, asker: Asker) -> Path:
    """The folder or file that ``reference`` names. Raises ``LoadFailed`` if there is none."""
    if "\0" in reference:
        raise LoadFailed(f"{asker.where} holds a path with a NUL character.")
    if reference.startswith(PACKAGE):
        return in_package(reference, asker)
    path = Path(reference)
    if path.is_absolute():
        if not can_reach(path):
            what = f"The folder or file '{shown(path.name)}' that {asker.where} names"
            raise LoadFailed(f"{what} does not exist or cannot be read.")
        return path
    if reference.startswith(".") or can_reach(asker.folder / path):
        return inside(asker.root, asker.folder / path, f"'{reference}' in {asker.where}")
    return from_hub(reference, revision, settings, asker)


def in_package(reference: str, asker: Asker) -> Path:
    """A file, or a folder of files, that an installed distribution lists as its own; the distribution is not imported."""
    name, _, file = reference.removeprefix(PACKAGE).partition("/")
    if not name or not file:
        raise LoadFailed(f"'{reference}' in {asker.where} must have the form package://distribution/file.")
    try:
        distribution = importlib.metadata.distribution(name)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        raise LoadFailed(f"The package '{name}' that {asker.where} names is not installed.") from None
    if not any(f"{shipped}/".startswith(f"{file}/") for shipped in distribution.files or ()):
        raise LoadFailed(f"The package '{name}' that {asker.where} names has no file '{file}'.")
    site = Path(str(distribution.locate_file("")))
    return inside(site, site / file, f"'{file}' of the package '{name}'")


def from_hub(repo_id: str, revision: str | None, settings: ModelSettings, asker: Asker) -> Path:
    """A snapshot of a hub repository, downloaded or from the cache: configuration, tokenizer and safetensors only."""
    if not _HUB_ID.fullmatch(repo_id):
        raise LoadFailed(f"'{repo_id}' in {asker.where} is no path that exists and no id of a hub repository.")
    model = asker.model
    from huggingface_hub import errors, snapshot_download

    log.info("Model '%s': looking for '%s' on the Hugging Face hub.", model, repo_id)
    try:
        return Path(
            snapshot_download(
                repo_id,
                revision=revision,
                cache_dir=settings.download_dir,
                token=settings.hf_token,
                allow_patterns=list(HUB_FILES),
                ignore_patterns=["*/*"],
                local_files_only=not asker.download,
            )
        )
    except errors.GatedRepoError as error:
        raise LoadFailed(f"The hub repository '{repo_id}' of model '{model}' is gated; set a token that may read it.") from error
    except errors.RepositoryNotFoundError as error:
        raise LoadFailed(f"There is no hub repository '{repo_id}' for model '{model}', or the token may not read it.") from error
    except errors.RevisionNotFoundError as error:
        raise LoadFailed(f"The hub repository '{repo_id}' of model '{model}' has no revision '{revision}'.") from error
    except errors.LocalEntryNotFoundError as error:
        if not asker.download:
            what = f"'{repo_id}' of model '{model}' is not in the local cache"
            raise LoadFailed(f"{what}, and nothing is downloaded here.") from error
        log.warning("The hub cannot be reached: %s", error)
        raise LoadFailed(f"The hub cannot be reached, and '{repo_id}' of model '{model}' is not in the local cache.") from error
    except (errors.HfHubHTTPError, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise LoadFailed(f"There is no room left on the disk to download '{repo_id}' of model '{model}' to.") from error
        log.warning("Downloading '%s' of model '%s' from the hub failed.", repo_id, model, exc_info=error)
        raise LoadFailed(f"Downloading '{repo_id}' of model '{model}' from the hub failed; the log has the cause.") from error


def detect(place: Path, load_format: LoadFormat, model: str) -> tuple[Path, WeightsFormat]:
    """The weights at ``place`` and their format. Raises ``LoadFailed`` for what is not there or may not be read."""
    if load_format is LoadFormat.DUMMY:
        return place, WeightsFormat.DUMMY
    if place.is_file():
        return _detect_file(place, load_format, model)
    try:
        files = sorted(path for path in place.iterdir() if path.is_file())
    except OSError:
        raise LoadFailed(f"The folder with the weights of model '{model}' cannot be read.") from None
    ggufs = [path for path in files if path.suffix == ".gguf"]
    if load_format is not LoadFormat.GGUF and any(path.suffix == ".safetensors" for path in files):
        if not (place / "config.json").is_file():
            raise LoadFailed(f"The folder with the weights of model '{model}' has no config.json.")
        return place, WeightsFormat.SAFETENSORS
    if load_format is not LoadFormat.SAFETENSORS and len(ggufs) == 1:
        return ggufs[0], WeightsFormat.GGUF
    raise LoadFailed(_nothing_to_load(files, ggufs, load_format, model))


def _detect_file(file: Path, load_format: LoadFormat, model: str) -> tuple[Path, WeightsFormat]:
    if file.suffix == ".gguf" and load_format is not LoadFormat.SAFETENSORS:
        return file, WeightsFormat.GGUF
    if file.suffix in _PICKLED:
        raise LoadFailed(_pickled(model))
    raise LoadFailed(f"'{file.name}' of model '{model}' is not a GGUF file; safetensors are named by their folder.")


def _nothing_to_load(files: list[Path], ggufs: list[Path], load_format: LoadFormat, model: str) -> str:
    if load_format is LoadFormat.AUTO and not ggufs and any(path.suffix in _PICKLED for path in files):
        return _pickled(model)
    if len(ggufs) > 1 and load_format is not LoadFormat.SAFETENSORS:
        return f"The folder with the weights of model '{model}' has {len(ggufs)} GGUF files; name one of them as \"model\"."
    wanted = "safetensors or GGUF" if load_format is LoadFormat.AUTO else load_format.value
    return f"The folder with the weights of model '{model}' has no {wanted} weights."


def _pickled(model: str) -> str:
    return (
        f"The weights of model '{model}' are pickled PyTorch files, and unpickling runs whatever code they hold; "
        "convert them to safetensors."
    )
