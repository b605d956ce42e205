"""Bytes of unread answers, counted up to a limit."""

import pytest

from octavo.errors import Cancelled
from octavo.text.backlog import LOGPROB_BYTES, TOKEN_BYTES, Backlog


def test_what_is_unread_is_counted_over_all_answers_and_let_go_when_it_is_read() -> None:
    backlog = Backlog(10 * TOKEN_BYTES)
    first = backlog.add(6, 0)
    backlog.add(4, 0)
    with pytest.raises(Cancelled, match=f"more than {10 * TOKEN_BYTES} bytes of answers were left unread"):
        backlog.add(1, 0)
    backlog.take(first)
    assert backlog.add(6, 0) == first


def test_logprobs_take_room() -> None:
    assert Backlog(10**6).add(3, 20) == 3 * (TOKEN_BYTES + 20 * LOGPROB_BYTES)
