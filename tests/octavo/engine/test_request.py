"""When a request ends, token by token."""

import numpy as np
import pytest

from octavo.engine.messages import FinishReason, TokenLogprobs
from octavo.engine.request import Request, Terms

from .fakes import EOS, make_request


def request(limit: int = 20, **sampling: object) -> Request:
    message = make_request(1, [1, 2, 3], **sampling)
    eos = () if message.sampling.ignore_eos else (EOS,)
    terms = Terms(limit, 0, eos, frozenset((*eos, *message.sampling.stop_token_ids)))
    return Request(b"1.1", message, np.array([1, 2, 3]), terms, 0.0)


@pytest.mark.parametrize(
    ("token", "length", "options", "finish", "stop"),
    [
        (4, 4, {}, None, None),
        (EOS, 5, {}, FinishReason.STOP, EOS),
        (EOS, 5, {"ignore_eos": True}, None, None),
        (9, 5, {"stop_token_ids": (9,)}, FinishReason.STOP, 9),
        (EOS, 4, {"ignore_eos": True, "stop_token_ids": (EOS,)}, FinishReason.STOP, EOS),
        (EOS, 5, {"min_tokens": 2}, None, None),
        (EOS, 6, {"min_tokens": 2}, FinishReason.STOP, EOS),
        (5, 5, {"limit": 5}, FinishReason.LENGTH, None),
        (EOS, 5, {"limit": 5}, FinishReason.STOP, EOS),
    ],
)
def test_the_end(token: int, length: int, options: dict, finish: FinishReason | None, stop: int | None) -> None:
    output = request(**options).answer(token, length, None)
    assert (output.token_ids, output.finish, output.stop_token_id) == ([token], finish, stop)


def test_only_the_first_output_tells_of_the_beginning() -> None:
    one = request(prompt_logprobs=0)
    one.started = 2.5
    entries = [TokenLogprobs([token], [-1.0], [1]) for token in (2, 3)]
    one.score(1, entries)
    first, second = one.answer(4, 4, None), one.answer(5, 5, None)
    assert (first.num_cached_tokens, first.queue_seconds, first.prompt_logprobs) == (0, 2.5, [None, *entries])
    assert (second.num_cached_tokens, second.queue_seconds, second.prompt_logprobs) == (None, None, None)
