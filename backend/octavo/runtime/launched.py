"""``LaunchedStep``: a step on its way through the device, and what comes of it. Knows rows and tensors, no model."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from octavo.engine.messages import TokenLogprobs
from octavo.engine.step import Masks, StepOutput
from octavo.runtime.courier import Courier
from octavo.runtime.logprobs import entries_of, score
from octavo.runtime.sampler import Asked


class Drawn(NamedTuple):
    """The tokens of a step: ``picks``, the places in it that have one, and what waits for them (int64, as long).

    ``scores`` waits for what ``score`` made of the tokens that ``counts`` names.
    """

    picks: np.ndarray
    tokens: Callable[[], np.ndarray]
    counts: dict[int, int]
    scores: Callable[[], np.ndarray] | None

    @classmethod
    def of(cls, picks: np.ndarray, tokens: torch.Tensor, asked: Asked | None, courier: Courier) -> "Drawn":
        """Send for ``tokens`` (int64, one for each of ``picks``), and for the logprobs that were asked for."""
        if asked is None:
            return cls(picks, courier.fetch(tokens), {}, None)
        places = [*asked.counts]
        scores = courier.fetch(score(asked.logits, tokens[places], max(asked.counts.values())))
        return cls(picks, courier.fetch(tokens), asked.counts, scores)


class LaunchedStep:
    """A step that was launched and is drawn once; the host learns of its end in ``wait``, once."""

    def __init__(
        self, num_rows: int, draw: Callable[[Masks], Drawn] | None, prompt_logprobs: dict[int, list[TokenLogprobs]]
    ) -> None:
        """``draw``: None if no row of the step has a token."""
        self._draw = draw
        self._drawn: Drawn | None = None
        self._output = StepOutput(np.full((num_rows, 1), -1), {}, prompt_logprobs)

    @torch.inference_mode()
    def draw(self, masks: Masks) -> None:
        """Have its tokens drawn, of what ``masks`` allow."""
        if self._draw is not None:
            self._drawn = self._draw(masks)

    @torch.inference_mode()
    def wait(self) -> StepOutput:
        """What the step made, once it has ended."""
        drawn = self._drawn
        if drawn is not None:
            self._output.token_ids[drawn.picks, 0] = drawn.tokens()
            if drawn.scores is not None:
                entries = entries_of(drawn.scores(), [*drawn.counts.values()])
                for at, entry in zip(drawn.counts, entries, strict=True):
                    self._output.logprobs[int(drawn.picks[at])] = [entry]
        return self._output
