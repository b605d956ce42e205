"""Lays out an image's root from its Containerfile without a container engine: as root, on Debian 12, with Linux's overlayfs.

``python k8s/rootfs.py FOLDER [ARGUMENT=VALUE ...]`` runs the file's own steps, one by one. The stage that builds has this machine's
root below it, of which nothing is changed, in place of the base image; a stage from ``scratch`` has nothing. FOLDER/root becomes
the last stage, and FOLDER/config.json says how it is to be run. What an engine does beside that (layers, pushing) is not done.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from string import Template

SOURCE = Path(__file__).parents[1]
CONTAINERFILE = Path(__file__).with_name("Containerfile")
_SHELL = ["/bin/sh", "-e", "-c"]
_IN_STAGE = """
mount --make-rprivate / && mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/merged"
for place in proc sys dev; do mount --rbind "/$place" "$1/merged/$place"; done
exec chroot "$1/merged" /bin/sh -e -c 'cd "$1" && exec /bin/sh -e -c "$2"' sh "$2" "$3"
"""


def instructions(text: str) -> list[tuple[str, str]]:
    """The file's instructions in their order, as (name, rest), comments and line breaks taken out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\s*\n", " ", "\n".join(lines))
    return [(name, rest.strip()) for name, rest in (line.split(None, 1) for line in joined.splitlines() if line.strip())]


class Stage:
    """One stage: its files, and what its instructions have set. ``folder``: everything of it, ``files``: what is in its root."""

    def __init__(self, folder: Path, base: str, arguments: dict[str, str]) -> None:
        """An empty stage; ``base`` is the image that it is from."""
        self.folder, self.scratch = folder, base == "scratch"
        self.files = folder / "root" if self.scratch else folder / "upper"
        for name in ("upper", "work", "merged") if not self.scratch else ("root",):
            (folder / name).mkdir(parents=True)
        self.directory = "/"
        self.config: dict = {"env": {}, "labels": {}, "ports": []}
        self._given, self._arguments = arguments, {}

    def do(self, name: str, rest: str, stages: dict[str, "Stage"]) -> None:
        """Carry out one instruction. Raises ``ValueError`` for one that is not known here."""
        match name:
            case "ARG":
                key, _, default = rest.partition("=")
                self._arguments[key] = self._given.get(key, default)
            case "ENV":
                self.config["env"] |= _pairs(Template(rest).safe_substitute(self._arguments))
            case "LABEL":
                self.config["labels"] |= _pairs(rest)
            case "WORKDIR":
                self.directory = rest
                self._at(rest).mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(shlex.split(rest), stages)
            case "RUN":
                self._run(rest)
            case "USER":
                self.config["user"] = rest
            case "EXPOSE":
                self.config["ports"] = [int(port) for port in rest.split()]
            case "ENTRYPOINT" | "CMD":
                self.config[name.lower()] = json.loads(rest)
            case _:
                raise ValueError(f"{name} is not known to this script")

    def _at(self, path: str) -> Path:
        return self.files / os.path.normpath(os.path.join(self.directory, path)).lstrip("/")

    def _copy(self, words: list[str], stages: dict[str, "Stage"]) -> None:
        source = SOURCE
        if words[0].startswith("--from="):
            source = stages[words.pop(0).removeprefix("--from=")].files
        *files, target = words
        for file in files:
            place, into = source / file.lstrip("/"), self._at(target)
            if place.is_dir():
                ignore = shutil.ignore_patterns("__pycache__") if source == SOURCE else None
                shutil.copytree(place, into, symlinks=True, dirs_exist_ok=True, ignore=ignore)
            else:
                into = into / place.name if target.endswith("/") else into
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(place, into)

    def _run(self, command: str) -> None:
        environment = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", **self._arguments}
        for name in ("PYTHONPATH", "VIRTUAL_ENV"):
            environment.pop(name, None)
        words = ["unshare", "-m", *_SHELL, _IN_STAGE, "sh", str(self.folder), self.directory, command]
        subprocess.run(words, env=environment, check=True)


def _pairs(rest: str) -> dict[str, str]:
    return dict(word.split("=", 1) for word in shlex.split(rest))


def build(folder: Path, arguments: dict[str, str]) -> None:
    """Carry out ``CONTAINERFILE`` below ``folder``; see the top."""
    stages: dict[str, Stage] = {}
    for name, rest in instructions(CONTAINERFILE.read_text()):
        if name == "FROM":
            base, *called = rest.split()
            stage = Stage(folder / f"stage-{len(stages)}", base, arguments)
            stages[called[1] if called else "last"] = stage
        else:
            print(f"{name} {rest[:100]}", flush=True)
            stage.do(name, rest, stages)
    stage.files.rename(folder / "root")
    (folder / "config.json").write_text(json.dumps(stage.config | {"directory": stage.directory}, indent=1))
    for used in stages.values():
        shutil.rmtree(used.folder)


if __name__ == "__main__":
    where, *given = sys.argv[1:]
    build(Path(where).resolve(), dict(word.split("=", 1) for word in given))
