"""Links: where they lead, also into the root of another process, as KServe links an image that holds a model."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from octavo.errors import LoadFailed
from octavo.repository.fingerprint import fingerprint
from octavo.repository.paths import inside, real_path
from octavo.repository.repository import ModelRepository

# A file system that only this process has, at a folder that is empty for all others; told on a line, kept until input ends.
SIDECAR = 'mount -t tmpfs none "$1" && mkdir "$1/models" && cp -r "$2/." "$1/models" && echo mounted && read -r _'


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    """A link to a model repository that lies in another process's root alone."""
    repository, place = tmp_path / "repository", tmp_path / "place"
    (repository / "m" / "1").mkdir(parents=True)
    (repository / "m" / "1" / "model.json").write_text('{"model": "weights", "load_format": "dummy", "tokenizer": "weights"}')
    (repository / "m" / "1" / "weights").mkdir()
    (repository / "m" / "1" / "weights" / "config.json").write_text("{}")
    (repository / "m" / "config.pbtxt").symlink_to("/etc/passwd")
    place.mkdir()
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare")
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", SIDECAR, "sh", str(place), str(repository)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as sidecar:
        assert sidecar.stdout is not None
        if sidecar.stdout.readline() != "mounted\n":
            pytest.skip("this machine gives nobody a mount namespace")
        link = tmp_path / "models"
        link.symlink_to(f"/proc/{sidecar.pid}/root{place}/models")
        yield link


def test_an_image_beside_the_server_is_a_repository(image: Path) -> None:
    repository = ModelRepository([image])
    assert repository.names() == ["m"]
    with pytest.raises(LoadFailed, match="lies outside"):
        repository.spec("m")
    assert {Path(name).name for name, _, _ in fingerprint(image)} >= {"model.json", "config.json"}
    settings = inside(image, image / "m" / "1" / "model.json", "It")
    assert settings.read_text().startswith('{"model"')
    with pytest.raises(LoadFailed, match="lies outside"):
        inside(image / "m", image / "m" / "config.pbtxt", "It")


def test_links_are_resolved_as_the_system_does(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "relative").symlink_to("a/../a/b")
    (tmp_path / "absolute").symlink_to(tmp_path / "relative")
    (tmp_path / "circle").symlink_to("circle")
    for name in ("relative", "absolute", "absolute/.."):
        assert real_path(tmp_path / name) == (tmp_path / name).resolve(strict=True)
    for name in ("circle", "nothing", "a/nothing/.."):
        with pytest.raises(OSError):
            real_path(tmp_path / name)
