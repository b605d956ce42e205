"""The files of ``k8s/``, as they lie there and as kustomize builds them. Knows nothing of what they mean."""

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[2] / "k8s"
SCHEMAS = Path(__file__).with_name("schemas.py")


class Manifest(NamedTuple):
    """One document. A ``patch`` holds what it changes and no more."""

    where: str
    document: dict[str, Any]
    patch: bool = False


def kustomizations() -> dict[str, dict[str, Any]]:
    """All of them by their folders."""
    files = sorted(ROOT.rglob("kustomization.yaml"))
    return {file.parent.relative_to(ROOT).as_posix(): _read(file)[0] for file in files}


def targets() -> list[str]:
    """The folders that a user applies: those that no other one builds on."""
    known = kustomizations()
    below = {path for folder, content in known.items() for path in named_files(folder, content) if path.is_dir()}
    return [folder for folder in known if (ROOT / folder).resolve() not in below]


def named_files(folder: str, content: dict[str, Any]) -> list[Path]:
    """What a kustomization names: files and folders."""
    names = [*content.get("resources", []), *content.get("components", [])]
    names += [patch["path"] for patch in content.get("patches", []) if "path" in patch]
    for generator in content.get("configMapGenerator", []):
        names += [name.rpartition("=")[2] for name in [*generator.get("envs", []), *generator.get("files", [])]]
    return [(ROOT / folder / name).resolve() for name in names]


@functools.cache
def files() -> tuple[Manifest, ...]:
    """Every document of every file."""
    patches = {
        (ROOT / folder / patch["path"]).resolve()
        for folder, content in kustomizations().items()
        for patch in content.get("patches", [])
        if "path" in patch
    }
    return tuple(
        Manifest(file.relative_to(ROOT).as_posix(), document, file in patches)
        for file in sorted(ROOT.rglob("*.yaml"))
        for document in _read(file)
    )


@functools.cache
def build(folder: str, root: Path = ROOT) -> tuple[Manifest, ...]:
    """What ``kubectl apply -k`` would send; ``root``: a copy of ``k8s/``."""
    command = ["kubectl", "kustomize", str(root / folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(Manifest(folder, document) for document in yaml.load_all(done.stdout, yaml.CSafeLoader))


def can_build() -> bool:
    """Whether this machine has a kubectl."""
    return shutil.which("kubectl") is not None


def wrong_with(manifests: Iterable[Manifest]) -> list[list[str]]:
    """For each, what its schema has against it."""
    given = json.dumps([{"document": one.document, "patch": one.patch} for one in manifests])
    done = subprocess.run([sys.executable, str(SCHEMAS)], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _read(file: Path) -> list[dict[str, Any]]:
    return list(yaml.load_all(file.read_text(), yaml.CSafeLoader))
