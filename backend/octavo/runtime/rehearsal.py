"""The largest steps that an engine may come to, run once before it is ready: they compile its kernels and take its memory.

Knows step inputs, no tensor.
"""

from collections.abc import Callable

import numpy as np

from octavo.config import EngineConfig
from octavo.engine.step import RowStart, StepInput, StepOutput
from octavo.sampling import SamplingParams

# Long enough for every way that attention splits its work; what it reads is one page, again and again.
LONGEST_CONTEXT = 4096
SAMPLING = SamplingParams(temperature=1.0, top_p=0.9, top_k=50)


def rehearse(execute: Callable[[StepInput], StepOutput], config: EngineConfig, page_size: int, max_model_len: int) -> None:
    """Prefill and decode alone and in full, on a cache of one page that every row is given."""
    context = min(max_model_len, LONGEST_CONTEXT)
    for rows in (1, min(config.max_num_seqs, config.max_num_batched_tokens)):
        chunk = min(config.max_num_batched_tokens // rows, max_model_len)
        execute(_step(rows, chunk, chunk, page_size, num_decodes=0))
        execute(_step(rows, 1, context, page_size, num_decodes=rows))


def _step(rows: int, query_len: int, context_len: int, page_size: int, num_decodes: int) -> StepInput:
    prompt = np.zeros(1, np.int32)
    return StepInput(
        starts=[RowStart(row, prompt, 1, SAMPLING, 0, row, ()) for row in range(rows)],
        rows=np.arange(rows, dtype=np.int32),
        token_ids=np.zeros(rows * query_len, np.int32),
        query_lens=np.full(rows, query_len, np.int32),
        context_lens=np.full(rows, context_len, np.int32),
        page_table=np.zeros((rows, -(-context_len // page_size)), np.int32),
        num_decodes=num_decodes,
        samples=np.ones(rows, np.bool_),
    )
