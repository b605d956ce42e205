"""When a request ends, token by token."""

import numpy as np
import pytest

from octavo.engine.messages import EngineOutput, FinishReason, TokenLogprobs
from octavo.engine.request import Request, Terms

from .fakes import EOS, make_request


def accept(tokens: list[int], limit: int = 20, logprobs: list[TokenLogprobs] | None = None, **sampling: object) -> EngineOutput:
    message = make_request(1, [1, 2, 3], **sampling)
    eos = () if message.sampling.ignore_eos else (EOS,)
    terms = Terms(limit, 0, eos, frozenset((*eos, *message.sampling.stop_token_ids)))
    return Request(b"1.1", message, np.array([1, 2, 3]), terms, 0.0).accept(tokens, logprobs)


@pytest.mark.parametrize(
    ("tokens", "options", "kept", "finish", "stop"),
    [
        ([4, 5], {}, [4, 5], None, None),
        ([4, EOS, 5], {}, [4, EOS], FinishReason.STOP, EOS),
        ([4, EOS, 5], {"ignore_eos": True}, [4, EOS, 5], None, None),
        ([4, 9, 5], {"stop_token_ids": (9,)}, [4, 9], FinishReason.STOP, 9),
        ([EOS], {"ignore_eos": True, "stop_token_ids": (EOS,)}, [EOS], FinishReason.STOP, EOS),
        ([4, EOS, EOS], {"min_tokens": 2}, [4, EOS, EOS], FinishReason.STOP, EOS),
        ([4, 5, 6], {"limit": 5}, [4, 5], FinishReason.LENGTH, None),
        ([4, EOS, 6], {"limit": 5}, [4, EOS], FinishReason.STOP, EOS),
    ],
)
def test_the_end(tokens: list[int], options: dict, kept: list[int], finish: FinishReason | None, stop: int | None) -> None:
    output = accept(tokens, **options)
    assert (output.token_ids, output.finish, output.stop_token_id) == (kept, finish, stop)


def test_logprobs_of_dropped_tokens_are_dropped() -> None:
    entries = [TokenLogprobs([token], [-1.0], [1]) for token in (4, EOS, 5)]
    assert accept([4, EOS, 5], logprobs=entries).logprobs == entries[:2]
