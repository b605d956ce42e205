"""``Steps``: computes any step of a model kernel by kernel, and keeps what steps leave behind. Knows rows, no graph, no budget."""

from collections.abc import Callable

import numpy as np
import torch

from octavo.engine.messages import TokenLogprobs
from octavo.engine.step import StepInput
from octavo.models.decoder import Decoder
from octavo.runtime.batch import build_batch
from octavo.runtime.courier import Courier
from octavo.runtime.launched import Drawn, LaunchedStep, Masks
from octavo.runtime.logprobs import prompt_logprobs
from octavo.runtime.memory import allocate_pool, kv_spec, pages_for
from octavo.runtime.penalties import PenaltyTable
from octavo.runtime.rows import SamplingTable
from octavo.runtime.sampler import Sampler
from octavo.runtime.state import RowState
from octavo_kernels import Kernels


class Steps:
    """The state of all rows, the KV cache and the ways from a step to its tokens.

    ``kv``: one layer's cache each, see ``Decoder.forward``; there is none before ``take_cache``.
    """

    def __init__(
        self, decoder: Decoder, kernels: Kernels, page_size: int, max_rows: int, courier: Courier, device: torch.device
    ) -> None:
        """``courier`` goes to ``device``, where ``decoder`` is and what ``kernels`` are for."""
        shape = decoder.shape
        self.kv_spec = kv_spec(shape, page_size, decoder.dtype)
        self.table = SamplingTable(max_rows, shape.vocab_size)
        self.state = RowState(max_rows, pages_for(decoder.max_len, self.kv_spec), courier, device)
        self.sampler = Sampler(self.table, PenaltyTable(max_rows, shape.vocab_size, kernels, courier, device), kernels, courier)
        self.kv: list[torch.Tensor] = []
        self._decoder = decoder
        self._kernels = kernels
        self._courier = courier
        self._device = device

    def take_cache(self, num_pages: int) -> None:
        """Take the memory for the KV cache; what was cached before is gone."""
        pool = allocate_pool(num_pages, self.kv_spec, self._decoder.dtype, self._device)
        self.kv = [pool[:, layer] for layer in range(self.kv_spec.num_layers)]

    def begin(self, step: StepInput) -> None:
        """Set up the rows and the pages that are new in this step."""
        for start in step.starts:
            self.sampler.start(start)
        self.state.set_pages(step.pages)

    @torch.inference_mode()
    def compute(self, step: StepInput) -> LaunchedStep:
        """Compute a step that has begun: keys and values of its tokens, and logits for each row that has all of its own."""
        picks = step.samples.nonzero()[0]
        batch = build_batch(step, picks, self.state, self.kv_spec.page_size, self._courier)
        hidden = self._decoder.forward(batch.token_ids, batch.attention, self.kv)
        scored = self._score_prompts(step, hidden) if self.table.prompts else {}
        if not len(picks):
            return LaunchedStep(len(step.rows), None, scored)
        logits = self._decoder.logits(hidden if batch.last is None else hidden[batch.last])
        rows = step.rows[picks]

        def sample() -> torch.Tensor:
            drawn = self._kernels.sample(logits, *self._courier.send(self.table.options(rows)), batch.positions)
            self.state.newest.index_copy_(0, batch.rows, drawn)
            return drawn

        return LaunchedStep(len(step.rows), self.drawing(step, logits, sample), scored)

    def drawing(self, step: StepInput, logits: torch.Tensor, sample: Callable[[], torch.Tensor]) -> Callable[[Masks], Drawn]:
        """What has ``logits`` (float32 [S, V], of the rows that yield a token) sampled, and sends for the tokens.

        ``sample`` draws int64 [S] from ``logits`` as they are then. What can be done to them before there are masks is done.
        """
        picks = step.samples.nonzero()[0]
        rows = step.rows[picks]

        asked = self.sampler.edit(logits, rows, step.context_lens[picks])

        def draw(masks: Masks) -> Drawn:
            self.sampler.restrict(logits, rows, masks)
            drawn = sample()
            self.sampler.count(rows, drawn)
            return Drawn.of(picks, drawn, asked, self._courier)

        return draw

    def _score_prompts(self, step: StepInput, hidden: torch.Tensor) -> dict[int, list[TokenLogprobs]]:
        """The prompt tokens that follow this step's positions, for rows that asked: position p scores the token at p + 1.

        A prompt that is scored to its end is forgotten.
        """
        scored = {}
        first_tokens = np.cumsum(step.query_lens) - step.query_lens
        for at, row in enumerate(step.rows.tolist()):
            wish = self.table.prompts.get(row)
            if wish is None:
                continue
            context, begin = int(step.context_lens[at]), int(first_tokens[at])
            targets = wish.token_ids[context - int(step.query_lens[at]) + 1 : context + 1].astype(np.int64)
            if len(targets):
                (there,) = self._courier.send([targets])
                before = hidden[begin : begin + len(targets)]
                scored[at] = prompt_logprobs(before, there, wish.rivals, self._decoder.logits, self._decoder.shape.vocab_size)
            if context + 1 >= len(wish.token_ids):
                del self.table.prompts[row]
        return scored
