"""What may come next where some words must not be written."""

import numpy as np
import pytest

from octavo.engine.matches import last_tokens, without


@pytest.mark.parametrize(
    ("answer", "banned"),
    [([], [5]), ([1], [2, 5]), ([1, 2], [3, 5]), ([2, 1, 2], [3, 5]), ([1, 2, 9], [5]), ([9, 1], [2, 5])],
)
def test_the_last_token_of_a_word_is_banned_behind_the_others(answer: list[int], banned: list[int]) -> None:
    words = [[1, 2], [1, 2, 3], [5], [8, 1, 2, 4]]
    assert sorted(last_tokens(words, np.array(answer, np.int32))) == banned


def test_a_mask_loses_its_tokens_and_is_not_changed_itself() -> None:
    mask = np.full(3, -1, np.int32)
    mask[1] = 0b0110
    allowed = without(mask, [0, 31, 31, 33, 95])
    bits = np.unpackbits(allowed.view(np.uint8), bitorder="little").nonzero()[0].tolist()
    assert bits == [*range(1, 31), 34, *range(64, 95)]
    assert mask.tolist() == [-1, 0b0110, -1]
    assert without(mask, []).tolist() == mask.tolist()
