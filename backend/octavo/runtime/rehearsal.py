"""The largest steps that an engine may come to, run before it is ready: they compile its kernels and take the memory they need.

Knows step inputs, no tensor.
"""

from collections.abc import Callable

import numpy as np

from octavo.config import EngineConfig
from octavo.engine.step import RowStart, StepInput
from octavo.sampling import SamplingParams

# Long enough for every way in which attention splits its work; what it reads is one page, again and again.
LONGEST_CONTEXT = 4096
SAMPLING = SamplingParams(temperature=1.0, top_p=0.9, top_k=50)


def rehearse(run: Callable[[StepInput], object], config: EngineConfig, max_model_len: int) -> None:
    """Prefill and decode, alone, in full and side by side, on a cache of one page: that with which all page tables begin."""
    context = min(max_model_len, LONGEST_CONTEXT)
    rows = min(config.max_num_seqs, config.max_num_batched_tokens)
    longest = min(config.max_num_batched_tokens, max_model_len)
    shared = min(config.max_num_batched_tokens // rows, max_model_len)
    mixed = ([min(16, longest)], 1) if rows > 1 else ([], 1)
    for prefills, decodes in ([longest], 0), ([], 1), ([shared] * rows, 0), ([], rows), mixed:
        queries = [1] * decodes + prefills
        contexts = [context] * decodes + prefills
        run(_step(np.array(queries), np.array(contexts), decodes))


def _step(query_lens: np.ndarray, context_lens: np.ndarray, num_decodes: int) -> StepInput:
    rows = len(query_lens)
    prompt = np.zeros(1, np.int32)
    return StepInput(
        starts=[RowStart(row, prompt, 1, SAMPLING, 0, row, (), False) for row in range(rows)],
        pages=np.zeros((0, 3), np.int32),
        rows=np.arange(rows),
        token_ids=np.zeros(query_lens[num_decodes:].sum(), np.int32),
        query_lens=query_lens,
        context_lens=context_lens,
        num_decodes=num_decodes,
        samples=np.ones(rows, np.bool_),
    )
