"""Masks that two sides see: more places come without a word, and what was handed out goes on to be the same memory."""

import os

import numpy as np

from octavo.engine.board import Board


def test_what_one_side_writes_the_other_reads_and_either_outlives_the_other() -> None:
    ours = Board(3)
    ours.grow(2)
    theirs = Board(3, os.dup(ours.file))
    early = ours.up_to(1)
    theirs.up_to(1)[1] = [4, 5, 6]
    ours.grow(40)
    theirs.up_to(39)[39] = [7, 8, 9]
    theirs.up_to(39)[0] = -1
    assert ours.up_to(39)[39].tolist() == [7, 8, 9]
    assert early.tolist() == [[-1, -1, -1], [4, 5, 6]]
    del ours
    assert theirs.up_to(0).dtype == np.int32
    assert theirs.up_to(0)[1].tolist() == early[1].tolist() == [4, 5, 6]
