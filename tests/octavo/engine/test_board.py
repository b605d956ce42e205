"""Masks that two sides see: more places come without a word, and what was handed out goes on to be the same memory."""

import os

import numpy as np

from octavo.engine.board import Board


def test_what_one_side_writes_the_other_reads_and_either_outlives_the_other() -> None:
    ours = Board(3)
    assert [ours.take(), ours.take()] == [0, 1]
    theirs = Board(3, os.dup(ours.file))
    early = ours.masks
    theirs.up_to(1)[1] = [4, 5, 6]
    last = max(ours.take() for _ in range(len(early)))
    assert last >= len(early), "there should be places that the other side has not seen"
    theirs.up_to(last)[last] = [7, 8, 9]
    theirs.up_to(last)[0] = -1
    assert ours.masks[last].tolist() == [7, 8, 9]
    assert early[:2].tolist() == [[-1, -1, -1], [4, 5, 6]]
    del ours
    assert theirs.up_to(0).dtype == np.int32
    assert theirs.up_to(0)[1].tolist() == early[1].tolist() == [4, 5, 6]


def test_a_place_is_handed_out_once_until_it_is_given_back() -> None:
    board = Board(1)
    taken = [board.take() for _ in range(200)]
    assert sorted(taken) == [*range(200)]
    masks = board.masks
    for place in (150, 3, 70):
        board.give_back(place)
    assert sorted(board.take() for _ in range(3)) == [3, 70, 150]
    assert board.masks is masks, "there are other masks though no place was added"
    assert board.take() not in taken
