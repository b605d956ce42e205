"""``ModelRepository``: folders of models -> ``ModelSpec``. Knows where models lie and what they ask for; starts nothing.

A path of a repository holds ``<model>/config.pbtxt`` and ``<model>/<version>/model.json``, or is itself a bare snapshot (a
folder with ``config.json`` or one ``.gguf``, or a ``.gguf`` file), which is then one model with version 1.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from octavo.errors import LoadFailed, Problems
from octavo.repository.config_pbtxt import complete_config, parse_config, parse_config_json, poll_failed
from octavo.repository.fingerprint import Fingerprint, fingerprint
from octavo.repository.paths import inside, is_model_name, read_text, real_path
from octavo.repository.placement import choose_device
from octavo.repository.settings import ModelSettings, parse_settings
from octavo.repository.sources import Asker, find_source
from octavo.repository.spec import ModelSpec, engine_config
from octavo.repository.versions import served_versions, version_of
from octavo.wire import mc

log = logging.getLogger(__name__)

_SKIPPED = {"lost+found"}


class ModelFolder(NamedTuple):
    """Where one model lies, links on the way to ``root`` resolved: they may lead elsewhere the next time.

    A bare one is a snapshot without ``config.pbtxt``, versions and ``model.json``.
    """

    name: str
    root: Path
    path: Path
    bare: bool


class ModelRepository:
    """The models under some paths. Every call reads the folders anew, so a model that was just put there is found, and a link
    that leads elsewhere by now (as git-sync's does) is followed.

    ``model_name`` names the paths that are bare snapshots; without it the name is that of the folder or file. Without
    ``download`` nothing is fetched from the hub: what its local cache lacks cannot be loaded.
    """

    def __init__(self, paths: Sequence[Path], model_name: str | None = None, *, download: bool = True) -> None:
        """Raises ``LoadFailed`` if a path cannot be read or a bare snapshot has no proper name."""
        self._paths = [Path(os.path.abspath(path)) for path in paths]
        self._model_name, self._download = model_name, download
        self._views: dict[Path, dict[str, Fingerprint]] = {}
        for path in self._paths:
            if not path.exists():
                raise LoadFailed(f"The model repository '{path.name}' does not exist.")
            if _is_bare(path):
                self._bare_folder(path)

    def names(self) -> list[str]:
        """Every model, also those that cannot be loaded, in alphabetical order."""
        return sorted({folder.name for folder in self._folders()})

    def is_bare(self, name: str) -> bool:
        """Whether a model is a snapshot or a file of weights by itself. Raises ``NotFound`` for an unknown one."""
        return self._folder(name).bare

    def fingerprints(self) -> dict[str, Fingerprint]:
        """By model, what its files are like; a name that two paths hold has the files of both.

        What cannot be read is as it was at the call before: a file system that fails for a moment changes no model.
        """
        found: dict[str, Fingerprint] = {}
        for path in self._paths:
            self._views[path] = self._view(path, self._views.get(path, {}))
            for name, files in self._views[path].items():
                found[name] = found.get(name, frozenset()) | files
        return found

    def spec(self, name: str, override_config: str | None = None) -> list[ModelSpec]:
        """What to start for ``name``: every version that its policy serves, ascending.

        ``override_config`` is a ``ModelConfig`` in JSON in place of ``config.pbtxt``. Raises ``NotFound`` for an unknown
        model, ``LoadFailed`` for a broken one, with all that is wrong with it.
        """
        folder, found = self._folder(name), Problems()
        config = complete_config(mc.ModelConfig(), name)
        with found.catch():
            config = self._config(folder, override_config)
        specs: list[ModelSpec] = []
        for version in self._versions(folder, config):
            with found.catch():
                specs.append(self._spec(folder, version, config))
        found.check()
        return specs

    def _spec(self, folder: ModelFolder, version: int, config: mc.ModelConfig) -> ModelSpec:
        settings, version_path = self._settings(folder, version)
        found = Problems()
        with found.catch():
            device = choose_device(config, settings.device)
        with found.catch():
            source = find_source(settings, Asker(folder.name, version_path, folder.root, download=self._download))
        found.check()
        engine = engine_config(folder.name, version, settings, source, device)
        return ModelSpec(folder.name, version, config.SerializeToString(deterministic=True), engine, settings.served_model_name)

    def _view(self, path: Path, before: dict[str, Fingerprint]) -> dict[str, Fingerprint]:
        """What the models under one path are like now, and ``before`` where that cannot be read."""
        try:
            folders = self._folders_of(path)
        except OSError as error:
            log.warning("Model repository '%s' cannot be read: %s. Its models stay as they are.", path.name, error.strerror)
            return before
        view: dict[str, Fingerprint] = {}
        for folder in folders:
            try:
                view[folder.name] = fingerprint(folder.path)
            except OSError as error:
                log.warning("The folder of model '%s' cannot be read: %s. It stays as it is.", folder.name, error.strerror)
                view[folder.name] = before.get(folder.name, frozenset())
        return view

    def _folders(self) -> list[ModelFolder]:
        """Every model under every path that can be read; a name that two paths hold appears twice."""
        found: list[ModelFolder] = []
        for path in self._paths:
            try:
                found += self._folders_of(path)
            except OSError as error:
                log.warning("Model repository '%s' cannot be read: %s.", path.name, error.strerror)
        return found

    def _folders_of(self, path: Path) -> list[ModelFolder]:
        """Every model under one path. Raises ``OSError`` if it cannot be read."""
        if _is_bare(path):
            return [self._bare_folder(path)]
        root = real_path(path)
        paths = [path for path in sorted(root.iterdir()) if is_model_name(path.name) and path.name not in _SKIPPED]
        return [ModelFolder(path.name, root, path, bare=False) for path in paths if path.is_dir()]

    def _folder(self, name: str) -> ModelFolder:
        """The one folder of ``name``; Triton's text if there is none."""
        found = [folder for folder in self._folders() if folder.name == name]
        if not found:
            raise poll_failed(name)
        if len(found) > 1:
            raise LoadFailed(f"Model '{name}' is in {len(found)} model repositories; a name can be in one of them.")
        (folder,) = found
        return folder._replace(path=inside(folder.root, folder.path, f"The folder of model '{name}'"))

    def _bare_folder(self, path: Path) -> ModelFolder:
        name = self._model_name or (path.stem if path.is_file() else path.name)
        if not is_model_name(name):
            raise LoadFailed(f"'{name}' cannot be the name of a model; name the snapshot with --model-name.")
        root = real_path(path)
        return ModelFolder(name, root, root, bare=True)

    def _config(self, folder: ModelFolder, override: str | None) -> mc.ModelConfig:
        """The completed configuration; an empty one if there is no ``config.pbtxt``."""
        path = folder.path / "config.pbtxt"
        if override is not None:
            config = parse_config_json(override, folder.name)
        elif folder.bare or not path.exists():
            config = mc.ModelConfig()
        else:
            what = f"config.pbtxt of model '{folder.name}'"
            config = parse_config(read_text(inside(folder.root, path, what), what), folder.name)
        return complete_config(config, folder.name)

    def _versions(self, folder: ModelFolder, config: mc.ModelConfig) -> list[int]:
        """The versions to serve, at least one; Triton's text if there is none."""
        try:
            present = [1] if folder.bare else [version_of(path.name) for path in folder.path.iterdir() if path.is_dir()]
        except OSError:
            raise LoadFailed(f"The folder of model '{folder.name}' cannot be read.") from None
        versions = served_versions((one for one in present if one is not None), config.version_policy, folder.name)
        if not versions:
            raise LoadFailed(f"at least one version must be available under the version policy of model '{folder.name}'")
        return versions

    def _settings(self, folder: ModelFolder, version: int) -> tuple[ModelSettings, Path]:
        """``model.json`` of one version, and the folder that its relative paths start from."""
        if folder.bare:
            return ModelSettings(model=str(folder.path)), folder.path
        path = inside(folder.root, folder.path / str(version), f"Version {version} of model '{folder.name}'")
        if not (path / "model.json").exists():
            raise LoadFailed(f"Version {version} of model '{folder.name}' has no model.json, which names the weights.")
        what = f"model.json of version {version} of model '{folder.name}'"
        return parse_settings(read_text(inside(folder.root, path / "model.json", what), what), folder.name), path


def _is_bare(root: Path) -> bool:
    """Whether a path is a snapshot by itself rather than a folder of models."""
    try:
        if root.is_file():
            return root.suffix == ".gguf"
        return (root / "config.json").is_file() or len(list(root.glob("*.gguf"))) == 1
    except OSError:
        return False
