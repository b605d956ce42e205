"""Ids equal those of transformers; what cannot be read is refused by name; the front end stays light."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import gguf
import pytest
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from octavo.errors import InvalidRequest, LoadFailed
from octavo.text.detokenizer import Detokenizer
from octavo.text.tokenizer import Tokenizer, load_tokenizer

HERE = Path(__file__).parent
DEMO_TOKENS = [tuple(pair) for pair in json.loads((HERE / "demo_tokens.json").read_text())]


def test_the_demo_models_ids_equal_those_of_transformers(tokenizer):
    wrong = [text for text, ids in DEMO_TOKENS if tokenizer.encode(text) != ids]
    assert len(DEMO_TOKENS) > 400
    assert wrong == []


@pytest.mark.long
def test_the_stored_ids_are_what_transformers_gives_today():
    spec = importlib.util.spec_from_file_location("make_demo_tokens", HERE / "make_demo_tokens.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.expected() == DEMO_TOKENS


def test_the_demo_model_adds_no_beginning_of_sequence(tokenizer):
    assert tokenizer.encode("The capital of France is") == [504, 3575, 282, 4649, 314]
    assert tokenizer.encode("") == []
    assert tokenizer.eos_token_ids == (2,)


def test_text_that_is_no_unicode_is_the_callers_mistake(tokenizer):
    with pytest.raises(InvalidRequest, match="not valid Unicode"):
        tokenizer.encode("a\ud800b")


def test_a_text_has_at_least_as_many_tokens_as_its_length_says(tokenizer):
    for text, ids in DEMO_TOKENS:
        assert len(ids) * tokenizer.longest_token >= len(text.encode()) or not ids or "<" in text or "\x00" in text
    assert tokenizer.longest_token == 81


def test_loading_imports_neither_torch_nor_transformers_nor_maps_the_weights(demo_gguf):
    code = (
        "import sys, pathlib\n"
        "from octavo.text.tokenizer import load_tokenizer\n"
        "load_tokenizer(sys.argv[1])\n"
        "heavy = {'torch', 'transformers', 'gguf', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "status = dict(line.split(':', 1) for line in pathlib.Path('/proc/self/status').read_text().splitlines())\n"
        "assert int(status['VmHWM'].split()[0]) < 90 * 1024, status['VmHWM']\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(demo_gguf)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def byte_level_gguf(path: Path, pre: str, **flags: bool) -> Path:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<bos>", "<eos>", "<think>", "<日本>", *alphabet, "Ġ1", "12", "123", "1234", "he", "ll", "hell", "hello"]
    types = [3, 3, 4, 3, *[1] * (len(tokens) - 4)]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(["Ġ 1", "1 2", "12 3", "123 4", "h e", "l l", "he ll"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for name, value in flags.items():
        getattr(writer, name)(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def spelled(tokenizer: Tokenizer, text: str) -> list[bytes]:
    return [tokenizer.token_bytes(i) for i in tokenizer.encode(text)]


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", [b" 1", b"2", b"3", b"4"]),
        ("smollm", [b" 1", b"2", b"3", b"4"]),
        ("llama-bpe", [b"<bos>", b" ", b"123", b"4"]),
        ("qwen2", [b" ", b"1", b"2", b"3", b"4"]),
        ("tekken", [b"<bos>", b" ", b"1", b"2", b"3", b"4"]),
    ],
)
def test_each_pre_tokenizer_splits_numbers_its_own_way(tmp_path, pre, pieces):
    assert spelled(load_tokenizer(byte_level_gguf(tmp_path / "t.gguf", pre)), " 1234") == pieces


def test_a_llama3_vocabulary_takes_whole_words_before_merges(tmp_path):
    assert spelled(load_tokenizer(byte_level_gguf(tmp_path / "t.gguf", "llama-bpe")), "hello") == [b"<bos>", b"hello"]
    assert spelled(load_tokenizer(byte_level_gguf(tmp_path / "u.gguf", "gpt-2")), "hello") == [b"hell", b"o"]


def test_control_and_user_defined_tokens_stay_whole_and_keep_their_ids(tmp_path):
    tokenizer = load_tokenizer(byte_level_gguf(tmp_path / "t.gguf", "qwen2"))
    assert [i for i in tokenizer.encode("<think>a<日本><eos>") if i < 4] == [2, 3, 1]
    assert tokenizer.special_ids == {0, 1, 3}


def test_the_files_flags_decide_what_stands_around_a_prompt(tmp_path):
    path = byte_level_gguf(tmp_path / "t.gguf", "llama-bpe", add_add_bos_token=False, add_add_eos_token=True)
    assert spelled(load_tokenizer(path), "a") == [b"a", b"<eos>"]


def test_an_unknown_pre_tokenizer_is_refused_by_name(tmp_path):
    with pytest.raises(LoadFailed, match=r"pre-tokenizer 'falcon' is not supported; supported are .*llama-bpe.*qwen2"):
        load_tokenizer(byte_level_gguf(tmp_path / "t.gguf", "falcon"))


def test_an_unknown_tokenizer_model_is_refused_by_name(tmp_path):
    path = tmp_path / "t.gguf"
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_tokenizer_model("bert")
    writer.add_token_list(["a"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(LoadFailed, match="tokenizer model 'bert' is not supported"):
        load_tokenizer(path)


def sentencepiece_gguf(path: Path) -> Path:
    pieces = ["▁", "a", "b", "▁a", "ab", "▁ab", "é"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", "<s>", "</s>", *[f"<0x{i:02X}>" for i in range(256)], *pieces])
    writer.add_token_scores([0.0] * 259 + [-float(i) for i in range(len(pieces))])
    writer.add_token_types([2, 3, 3, *[6] * 256, *[1] * len(pieces)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_a_sentencepiece_vocabulary_merges_by_score_and_falls_back_to_bytes(tmp_path):
    tokenizer = load_tokenizer(sentencepiece_gguf(tmp_path / "t.gguf"))
    assert spelled(tokenizer, "ab é日") == [b"<s>", b" ab", b" ", "é".encode(), b"\xe6", b"\x97", b"\xa5"]
    detokenizer = Detokenizer(tokenizer)
    assert [detokenizer.push(i) for i in tokenizer.encode("ab日")] == ["", " ab", "", "", "日"]


def snapshot(folder: Path, config: dict | None = None) -> Path:
    backend = tokenizers.Tokenizer(models.BPE({"<s>": 0, "</s>": 1, **{c: i + 2 for i, c in enumerate("abcĠ")}}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<s>", "</s>"])
    backend.enable_truncation(2)
    backend.enable_padding()
    backend.save(str(folder / "tokenizer.json"))
    if config is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("config", "ids"),
    [
        (None, [2, 3, 4, 5, 2]),
        ({"bos_token": "<s>", "eos_token": "</s>"}, [2, 3, 4, 5, 2]),
        ({"bos_token": {"content": "<s>"}, "add_bos_token": True}, [0, 2, 3, 4, 5, 2]),
        ({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": False, "add_eos_token": True}, [2, 3, 4, 5, 2, 1]),
    ],
)
def test_a_snapshot_is_read_with_its_configuration_and_never_truncates(tmp_path, config, ids):
    assert load_tokenizer(snapshot(tmp_path, config)).encode("abc a") == ids


def test_a_snapshots_end_of_sequence_comes_from_its_configuration(tmp_path):
    assert load_tokenizer(snapshot(tmp_path, {"eos_token": "</s>"})).eos_token_ids == (1,)


def test_snapshots_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(LoadFailed, match=r"has no tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(LoadFailed, match="not a tokenizer that the tokenizers library can read"):
        load_tokenizer(tmp_path)
    snapshot(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(LoadFailed, match="not valid JSON"):
        load_tokenizer(tmp_path)


def test_a_decoder_of_another_kind_is_refused():
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    backend.decoder = decoders.WordPiece()
    with pytest.raises(LoadFailed, match="decoder is not supported"):
        Tokenizer(backend)
