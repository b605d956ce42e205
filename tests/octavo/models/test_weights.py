"""Safetensors: sharded ones, and everything that can be wrong with a folder. No message names more than a file."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from octavo.config import WeightsFormat
from octavo.errors import LoadFailed

FILE = "model.safetensors"


@pytest.fixture
def folder(models, tmp_path):
    """A small Llama's snapshot, to be broken."""
    return shutil.copytree(models("llama-biases")[1], tmp_path / "snapshot")


def refused(load, folder, match, **options):
    with pytest.raises(LoadFailed, match=match) as caught:
        load(folder, **options)
    assert str(folder.parent) not in str(caught.value)


def change(folder, edit):
    tensors = load_file(folder / FILE)
    edit(tensors)
    save_file(tensors, folder / FILE)


def logits(decoder, paged):
    return paged(decoder, 1, 32).feed([(0, [1, 2, 3, 4, 5])])[0]


def test_shards(models, load, paged, tmp_path):
    model, whole = models("llama-biases")
    model.save_pretrained(tmp_path / "sharded", max_shard_size="50KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    assert torch.equal(logits(load(tmp_path / "sharded"), paged), logits(load(whole), paged))


def test_stored_in_bfloat16(models, load, paged, folder):
    change(folder, lambda tensors: tensors.update({name: tensor.bfloat16() for name, tensor in tensors.items()}))
    assert torch.equal(logits(load(folder, "bfloat16"), paged), logits(load(models("llama-biases")[1], "bfloat16"), paged))


def test_the_models_own_dtype(load, folder):
    assert load(folder, None).weights_dtype == torch.float32
    assert load(folder, "auto").weights_dtype == torch.float32
    refused(load, folder, "The dtype 'int3' is not supported; supported are auto, bfloat16", dtype="int3")


def test_a_missing_tensor(load, folder):
    names = [f"model.layers.{i}.mlp.{part}_proj.weight" for i in range(2) for part in ("up", "down")]
    change(folder, lambda tensors: [tensors.pop(name) for name in names])
    refused(load, folder, r"The weights lack 4 tensors: 'model\.layers\.0\.mlp\.down_proj\.weight', .* and 1 more\.")


def test_an_unexpected_tensor(load, folder):
    change(folder, lambda tensors: tensors.update({"model.layers.0.self_attn.sinks": torch.zeros(4)}))
    refused(load, folder, r"The weights hold 1 tensor that .* no place for: 'model\.layers\.0\.self_attn\.sinks'\.")


def test_tensors_that_old_checkpoints_hold_besides(models, load, tmp_path):
    folder = shutil.copytree(models("llama")[1], tmp_path / "old")
    spare = {"lm_head.weight": torch.zeros(131, 48), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(4)}
    change(folder, lambda tensors: tensors.update(spare))
    assert load(folder).shape.tied


def test_a_wrong_shape(load, folder):
    change(folder, lambda tensors: tensors.update({"model.norm.weight": torch.zeros(47)}))
    refused(load, folder, r"The tensor 'model\.norm\.weight' has shape \[47\], but the model's config makes it \[48\]\.")


def test_a_wrong_kind(load, folder):
    change(folder, lambda tensors: tensors.update({"model.norm.weight": torch.zeros(48, dtype=torch.int8)}))
    refused(load, folder, r"'model\.norm\.weight' is stored as I8, which is not supported")


@pytest.mark.parametrize("keep", [0, 5, 100, 10_000])
def test_a_truncated_file(load, folder, keep):
    data = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(data[:keep])
    refused(load, folder, r"The file 'model\.safetensors' is not a whole safetensors file\.")


def test_pickled_weights_only(load, folder):
    (folder / FILE).rename(folder / "pytorch_model.bin")
    refused(load, folder, "The folder 'snapshot' holds pickled weights only, which could run code")


def test_no_weights(load, folder):
    (folder / FILE).unlink()
    refused(load, folder, "The folder 'snapshot' holds no safetensors file")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("nonsense", "is not an index of safetensors files"),
        ("[]", "is not an index of safetensors files"),
        (json.dumps({"weight_map": {"a": 1}}), "is not an index of safetensors files"),
        (json.dumps({"weight_map": {"a": "../snapshot/model.safetensors"}}), "names files outside of its folder"),
        (json.dumps({"weight_map": {"a": "gone.safetensors"}}), r"names the file 'gone\.safetensors', which does not exist"),
    ],
)
def test_a_bad_index(load, folder, index, message):
    (folder / "model.safetensors.index.json").write_text(index)
    refused(load, folder, message)


def test_dummy_weights(load, paged, folder):
    """They need no file, depend on the seed alone, and are not all the same."""
    (folder / FILE).unlink()
    one, same, other = (
        logits(load(folder, weights_format=WeightsFormat.DUMMY, seed=seed), paged) for seed in (1, 1, 2)
    )  # fmt: skip
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert one.std() > 1e-3
