"""Deltas put together are the full decoding, whatever the ids; characters never come in halves."""

import time

import pytest
from hypothesis import given, seed, settings
from hypothesis import strategies as st

from octavo.text.detokenizer import Detokenizer
from octavo.text.spelling import BYTE_OF
from octavo.text.tokenizer import Tokenizer


def deltas(tokenizer: Tokenizer, ids: list[int], skip: bool = True) -> list[str]:
    detokenizer = Detokenizer(tokenizer, skip)
    return [*map(detokenizer.push, ids), detokenizer.finish()]


@pytest.fixture(scope="module")
def byte_ids(tokenizer) -> list[int]:
    """The ids of single bytes: random runs of them are mostly invalid UTF-8."""
    return [i for i in map(tokenizer.backend.token_to_id, BYTE_OF) if i is not None]


@seed(1)
@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 49_151)), st.booleans())
def test_any_ids_decode_as_if_at_once(tokenizer, ids, skip):
    assert "".join(deltas(tokenizer, ids, skip)) == tokenizer.backend.decode(ids, skip_special_tokens=skip)


@seed(2)
@settings(max_examples=500, deadline=None)
@given(st.data())
def test_invalid_utf8_decodes_as_if_at_once(tokenizer, byte_ids, data):
    ids = data.draw(st.lists(st.sampled_from(byte_ids), max_size=12))
    assert "".join(deltas(tokenizer, ids)) == tokenizer.backend.decode(ids)


@seed(3)
@settings(max_examples=300, deadline=None)
@given(st.text())
def test_a_text_comes_back_whole_and_without_replacement_characters(tokenizer, text):
    ids = tokenizer.encode(text)
    pieces = deltas(tokenizer, ids, skip=False)
    assert "".join(pieces) == tokenizer.backend.decode(ids, skip_special_tokens=False)
    if "\ufffd" not in "".join(pieces):
        assert all("\ufffd" not in piece for piece in pieces)


def test_a_character_comes_with_its_last_byte(tokenizer):
    ids = tokenizer.encode("𝔘")
    assert len(ids) > 1
    assert deltas(tokenizer, ids) == [""] * (len(ids) - 1) + ["𝔘", ""]
    assert deltas(tokenizer, ids[:-1])[-1] == "\ufffd"


def test_special_tokens_are_left_out_or_shown(tokenizer):
    ids = tokenizer.encode("<|im_start|>user")
    assert "".join(deltas(tokenizer, ids)) == "user"
    assert "".join(deltas(tokenizer, ids, skip=False)) == "<|im_start|>user"


@pytest.mark.parametrize("token_id", [-1, 49_152, 2**31, 2**64])
def test_ids_outside_the_vocabulary_add_nothing(tokenizer, token_id):
    assert deltas(tokenizer, [504, token_id, 3575]) == ["The", "", " capital", ""]


def test_time_is_linear_even_without_one_valid_character(tokenizer, byte_ids):
    continuation = tokenizer.backend.token_to_id("Ģ")
    detokenizer = Detokenizer(tokenizer)
    started = time.process_time()
    for _ in range(200_000):
        detokenizer.push(continuation)
    assert time.process_time() - started < 5
