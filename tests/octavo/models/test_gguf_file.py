"""The GGUF head reader: all value types, and nothing but ``LoadFailed`` on a damaged file."""

import gguf
import pytest

from octavo.errors import LoadFailed
from octavo.models.gguf_file import GgufFile


@pytest.fixture
def small_gguf(tmp_path):
    path = tmp_path / "small.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_uint8("u8", 200)
    writer.add_int64("i64", -(2**40))
    writer.add_float32("f32", 0.5)
    writer.add_bool("yes", True)
    writer.add_string("text", "häßlich 日本")
    writer.add_array("words", ["a", "", "日本"])
    writer.add_array("numbers", [1, -2, 3])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_reads_every_kind_of_value(small_gguf):
    head = GgufFile(small_gguf).metadata
    assert head["general.architecture"] == "llama"
    assert [head[key] for key in ("u8", "i64", "f32", "yes", "text")] == [200, -(2**40), 0.5, True, "häßlich 日本"]
    assert head["words"] == ["a", "", "日本"]
    assert head["numbers"] == [1, -2, 3]


def test_a_head_cut_anywhere_is_refused(small_gguf, tmp_path):
    whole = small_gguf.read_bytes()
    cut = tmp_path / "cut.gguf"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(LoadFailed, match=r"'cut\.gguf' .* its head is damaged"):
            GgufFile(cut)


@pytest.mark.parametrize("lie", [2**62, 2**32, 10**6])
def test_a_length_beyond_the_file_is_refused_before_memory_is_taken(small_gguf, lie):
    whole = small_gguf.read_bytes()
    place = whole.index(b"words") + len(b"words") + 4 + 4
    small_gguf.write_bytes(whole[:place] + lie.to_bytes(8, "little") + whole[place + 8 :])
    with pytest.raises(LoadFailed, match="head is damaged"):
        GgufFile(small_gguf)


def test_a_file_of_another_kind_and_a_missing_one_are_refused_without_their_folder(tmp_path):
    other = tmp_path / "other.gguf"
    other.write_bytes(b"PK\x03\x04" * 100)
    for path in (other, tmp_path / "missing.gguf"):
        with pytest.raises(LoadFailed) as failure:
            GgufFile(path)
        assert str(tmp_path) not in str(failure.value)
