"""``ModelRepository`` from outside: folders in, specs or sentences out."""

import errno
import json
import os
import shutil
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from octavo.config import EngineConfig, SchedulingPolicy, WeightsFormat
from octavo.errors import LoadFailed, NotFound, OctavoError
from octavo.repository import ModelRepository, ModelSpec
from octavo.wire import mc

HOSTILE = ["..", ".", "", "/", "a/b", "../m", "m/../m", "m/1", "a\\b", "..\\m", "m\0", "\0", "/etc", "~", ".hidden", "m\n"]
HOSTILE += ["x" * 5000, "\ud800"]


def test_a_model_becomes_a_spec(root: Path, add_model, weights: Path) -> None:
    config = 'backend: "vllm" instance_group { kind: KIND_CPU }'
    add_model("m", config=config, dtype="bfloat16", max_num_seqs=4, scheduling_policy="priority")
    (spec,) = ModelRepository([root]).spec("m")
    assert (spec.name, spec.version) == ("m", 1)
    assert mc.ModelConfig.FromString(spec.config).backend == "vllm"
    assert spec.engine == EngineConfig(
        name="m",
        version=1,
        weights=str(weights),
        weights_format=WeightsFormat.GGUF,
        tokenizer=str(weights),
        device="cpu",
        dtype="bfloat16",
        max_num_seqs=4,
        scheduling_policy=SchedulingPolicy.PRIORITY,
    )


def test_a_spec_crosses_a_socket(root: Path, add_model) -> None:
    add_model("m", hf_overrides={"rope_scaling": {"factor": 2.0}})
    (spec,) = ModelRepository([root]).spec("m")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=ModelSpec) == spec


def test_every_engine_setting_comes_from_model_json(root: Path, add_model) -> None:
    given_values = {
        "dtype": "float16",
        "max_model_len": 99,
        "max_num_seqs": 3,
        "max_num_batched_tokens": 77,
        "gpu_memory_utilization": 0.25,
        "kv_cache_memory_bytes": 1 << 20,
        "block_size": 32,
        "enable_prefix_caching": False,
        "enable_chunked_prefill": False,
        "scheduling_policy": "priority",
        "seed": 5,
        "max_logprobs": 7,
        "max_queue_size": 9,
        "deterministic": True,
        "hf_overrides": {"a": 1},
        "device": "cuda:1",
        "tool_call_parser": "hermes",
        "reasoning_parser": "qwen3",
    }
    add_model("m", **given_values)
    add_model("paced", itl_target_ms=12.5)  # it needs chunks
    (spec,), (paced,) = ModelRepository([root]).spec("m"), ModelRepository([root]).spec("paced")
    engine = msgspec.to_builtins(spec.engine)
    assert {name: engine[name] for name in given_values} == given_values
    assert paced.engine.itl_target_ms == 12.5
    others = {"name", "version", "weights", "weights_format", "tokenizer", "itl_target_ms"}
    assert set(engine) - set(given_values) == others


def test_versions_follow_the_policy(root: Path, add_model) -> None:
    add_model("m", versions=(1, 2, 10), config="version_policy { latest { num_versions: 2 } }")
    (root / "m" / "03").mkdir()
    (root / "m" / "notes").mkdir()
    repository = ModelRepository([root])
    assert [spec.version for spec in repository.spec("m")] == [2, 10]


def test_a_model_without_versions(root: Path, add_model) -> None:
    add_model("m", versions=())
    with pytest.raises(LoadFailed, match=r"^at least one version must be available under the version policy of model 'm'$"):
        ModelRepository([root]).spec("m")


def test_a_version_without_model_json(root: Path, add_model) -> None:
    (add_model("m") / "1" / "model.json").unlink()
    with pytest.raises(LoadFailed, match=r"Version 1 of model 'm' has no model.json"):
        ModelRepository([root]).spec("m")


def test_a_missing_config_pbtxt_is_an_empty_one(root: Path, add_model) -> None:
    add_model("m", config=None)
    assert len(ModelRepository([root]).spec("m")) == 1


def test_broken_models_do_not_hide_the_good(root: Path, add_model) -> None:
    add_model("good")
    add_model("text", config="nonsense")
    add_model("bytes")
    (root / "bytes" / "config.pbtxt").write_bytes(b"\xff\xfe")
    add_model("empty", versions=())
    add_model("batch", config="max_batch_size: 8")
    (root / "a-file").write_text("")
    (root / ".git").mkdir()
    (root / "lost+found").mkdir()
    repository = ModelRepository([root])
    assert repository.names() == ["batch", "bytes", "empty", "good", "text"]
    reasons = {
        "batch": "max_batch_size",
        "bytes": "is not UTF-8",
        "empty": "at least one version",
        "text": "does not parse at line 1",
    }
    for name, text in reasons.items():
        with pytest.raises(LoadFailed, match=text):
            repository.spec(name)
    assert len(repository.spec("good")) == 1


def test_a_model_that_was_just_added_is_found(root: Path, add_model) -> None:
    repository = ModelRepository([root])
    assert repository.names() == []
    add_model("late")
    assert repository.names() == ["late"]
    assert len(repository.spec("late")) == 1


def test_several_paths_and_a_name_in_two_of_them(root: Path, tmp_path: Path, add_model) -> None:
    other = tmp_path / "other"
    add_model("one")
    add_model("twice")
    add_model("twice", where=other)
    add_model("two", where=other)
    repository = ModelRepository([root, other])
    assert repository.names() == ["one", "twice", "two"]
    assert repository.spec("two") and repository.spec("one")
    with pytest.raises(LoadFailed, match=r"^Model 'twice' is in 2 model repositories; a name can be in one of them.$"):
        repository.spec("twice")


def test_an_unknown_model_gets_tritons_text(root: Path) -> None:
    with pytest.raises(NotFound, match=r"^failed to load 'nope', failed to poll from model repository$"):
        ModelRepository([root]).spec("nope")


def test_a_path_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"^The model repository 'gone' does not exist.$"):
        ModelRepository([tmp_path / "gone"])


def test_a_load_may_bring_its_own_configuration(root: Path, add_model) -> None:
    add_model("m", versions=(1, 2), config="max_batch_size: 8")
    override = json.dumps({"versionPolicy": {"specific": {"versions": [1]}}, "instance_group": [{"kind": "KIND_CPU"}]})
    (spec,) = ModelRepository([root]).spec("m", override_config=override)
    assert (spec.version, spec.engine.device) == (1, "cpu")
    with pytest.raises(LoadFailed, match="max_batch_size"):
        ModelRepository([root]).spec("m")
    with pytest.raises(LoadFailed, match="directory name must equal model name"):
        ModelRepository([root]).spec("m", override_config='{"name": "other"}')


class TestBareSnapshots:
    """A path that is one model itself."""

    @pytest.fixture
    def snapshot(self, tmp_path: Path) -> Path:
        folder = tmp_path / "llama-3"
        folder.mkdir()
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            (folder / name).write_bytes(b"")
        (folder / "1").mkdir()
        return folder

    @pytest.mark.parametrize(("name", "served"), [(None, "llama-3"), ("llm", "llm")])
    def test_a_snapshot_is_one_model(self, snapshot: Path, name: str | None, served: str) -> None:
        repository = ModelRepository([snapshot], model_name=name)
        assert repository.names() == [served]
        (spec,) = repository.spec(served)
        assert (spec.version, spec.engine.weights, spec.engine.tokenizer) == (1, str(snapshot), str(snapshot))
        assert mc.ModelConfig.FromString(spec.config).name == served

    def test_a_folder_with_one_gguf_and_the_file_itself(self, weights: Path) -> None:
        for path, name in ((weights.parent, weights.parent.name), (weights, "weights")):
            (spec,) = ModelRepository([path]).spec(name)
            assert spec.engine.weights == str(weights)

    def test_links_of_a_hub_cache_are_followed(self, snapshot: Path, tmp_path: Path) -> None:
        blob = tmp_path / "blob"
        (snapshot / "model.safetensors").rename(blob)
        (snapshot / "model.safetensors").symlink_to(blob)
        assert len(ModelRepository([snapshot]).spec("llama-3")) == 1

    def test_beside_a_repository(self, snapshot: Path, root: Path, add_model) -> None:
        add_model("m")
        assert ModelRepository([root, snapshot]).names() == ["llama-3", "m"]

    def test_a_folder_without_a_proper_name(self, snapshot: Path) -> None:
        hidden = snapshot.rename(snapshot.with_name(".snapshot"))
        with pytest.raises(LoadFailed, match=r"'.snapshot' cannot be the name of a model; name the snapshot with --model-name"):
            ModelRepository([hidden])
        assert ModelRepository([hidden], model_name="llm").names() == ["llm"]

    def test_a_load_may_bring_its_own_configuration(self, snapshot: Path) -> None:
        (spec,) = ModelRepository([snapshot]).spec("llama-3", override_config='{"instance_group": [{"kind": "KIND_CPU"}]}')
        assert spec.engine.device == "cpu"


class TestContainment:
    """No name and no link leads out of a repository."""

    @pytest.mark.parametrize("name", HOSTILE)
    def test_hostile_names_are_unknown(self, root: Path, add_model, name: str) -> None:
        add_model("m")
        with pytest.raises(NotFound, match="failed to poll from model repository"):
            ModelRepository([root]).spec(name)

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(name=st.text(alphabet=st.sampled_from("./\\m~1\0 é:%*"), max_size=8) | st.text(max_size=20))
    @example(name="m/../../secret")
    def test_only_names_of_folders_are_found(self, tmp_path: Path, name: str) -> None:
        root = tmp_path / "inner" / "models"
        for folder in (root / "m" / "1", tmp_path / "inner" / "secret" / "1", tmp_path / "secret" / "1"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "model.json").write_text('{"model": "/nowhere"}')
        try:
            ModelRepository([root]).spec(name)
        except NotFound:
            assert name != "m"
        except OctavoError:
            assert name == "m"

    def test_a_model_folder_that_is_a_link_outwards(self, root: Path, tmp_path: Path, add_model) -> None:
        add_model("real", where=tmp_path / "elsewhere")
        (root / "linked").symlink_to(tmp_path / "elsewhere" / "real")
        repository = ModelRepository([root])
        with pytest.raises(LoadFailed, match=r"^The folder of model 'linked' lies outside the folder that it belongs to.$"):
            repository.spec("linked")

    @pytest.mark.parametrize("name", ["config.pbtxt", "1", "1/model.json"])
    def test_a_part_that_is_a_link_outwards(self, root: Path, tmp_path: Path, add_model, name: str) -> None:
        outside = add_model("m", where=tmp_path / "elsewhere")
        inside = add_model("m")
        part = inside / name
        part.rename(part.with_name("moved"))
        part.symlink_to(outside / name)
        with pytest.raises(LoadFailed, match="lies outside"):
            ModelRepository([root]).spec("m")

    def test_links_inside_are_followed_as_config_maps_need_it(self, root: Path, add_model) -> None:
        add_model(".data")
        (root / "m").symlink_to(".data")
        assert ModelRepository([root]).names() == ["m"]
        assert len(ModelRepository([root]).spec("m")) == 1

    @pytest.mark.parametrize("linked", ["", "m"])
    def test_a_link_that_leads_elsewhere_by_now_is_followed(self, root: Path, tmp_path: Path, add_model, linked: str) -> None:
        """As git-sync publishes: the repository, or a model in it, is a link that is replaced; sizes and times may be the same."""
        for number, tree in enumerate(("a", "b"), start=1):
            model = add_model("m", where=root / ".trees" / tree, seed=number)
            os.utime(model / "1" / "model.json", ns=(1, 1))
            os.utime(model / "config.pbtxt", ns=(1, 1))
        link = root / linked if linked else tmp_path / "current"
        link.symlink_to(root / ".trees" / "a" / linked)
        repository = ModelRepository([root if linked else link])
        before = repository.fingerprints()
        assert repository.spec("m")[0].engine.seed == 1
        assert repository.fingerprints() == before
        (tmp_path / "next").symlink_to(root / ".trees" / "b" / linked)
        (tmp_path / "next").replace(link)
        shutil.rmtree(root / ".trees" / "a")
        after = repository.fingerprints()
        assert before.keys() == after.keys() == {"m"}
        assert before["m"] != after["m"]
        assert repository.spec("m")[0].engine.seed == 2

    def test_a_bare_snapshot_has_the_name_of_the_link_to_it(self, tmp_path: Path) -> None:
        (tmp_path / "0a1b2c").mkdir()
        (tmp_path / "0a1b2c" / "config.json").write_text("{}")
        (tmp_path / "current").symlink_to("0a1b2c")
        assert ModelRepository([tmp_path / "current"]).names() == ["current"]

    def test_a_link_to_itself(self, root: Path) -> None:
        (root / "loop").symlink_to("loop")
        assert ModelRepository([root]).names() == []


def test_a_root_that_fails_for_a_moment_keeps_its_models(root: Path, add_model, tmp_path: Path, monkeypatch, caplog) -> None:
    add_model("m")
    other = tmp_path / "other"
    (other / "n").mkdir(parents=True)
    (other / "n" / "config.pbtxt").write_text("")
    repository = ModelRepository([root, other])
    before = repository.fingerprints()
    assert before.keys() == {"m", "n"}
    root.rename(tmp_path / "away")
    shutil.rmtree(other / "n")
    assert repository.fingerprints() == {"m": before["m"]}
    (message,) = caplog.records
    assert message.getMessage().endswith("Its models stay as they are.") and message.exc_info is None
    (tmp_path / "away").rename(root)
    assert repository.fingerprints() == {"m": before["m"]}
    shutil.rmtree(root / "m")
    assert repository.fingerprints() == {}


def test_a_model_whose_files_fail_for_a_moment_has_not_changed(root: Path, add_model, monkeypatch, caplog) -> None:
    def fail(_: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    add_model("m")
    repository = ModelRepository([root])
    before = repository.fingerprints()
    with monkeypatch.context() as patch:
        patch.setattr("octavo.repository.repository.fingerprint", fail)
        assert repository.fingerprints() == before
        add_model("late")
        assert repository.fingerprints() == before | {"late": frozenset()}
    assert "The folder of model 'm' cannot be read: Input/output error. It stays as it is." in caplog.messages
    assert repository.fingerprints()["m"] == before["m"]
