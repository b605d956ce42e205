"""The kinds of steps that an engine may come to, run before it is ready: they load its kernels and take the memory they need.

Knows step inputs, no tensor.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from octavo.config import EngineConfig
from octavo.engine.step import Masks, RowStart, StepInput
from octavo.sampling import SamplingParams

# Long enough for every way in which attention splits its work; what it reads is one page, again and again.
LONGEST_CONTEXT = 4096
# From so many tokens or rows on, no launcher asks how many there are.
MANY = 1024
SAMPLING = SamplingParams(temperature=1.0, top_p=0.9, top_k=50)
PENALISED = SamplingParams(temperature=1.0, presence_penalty=1.0)


def rehearsal(config: EngineConfig, max_model_len: int, vocab_size: int) -> Iterator[tuple[StepInput, Masks]]:
    """Prefill and decode, alone, in full and side by side, on a cache of one page: that with which all page tables begin.

    Launchers choose kernels by the next power of two of a step's tokens, of those of its longest chunk, of its decodes, of its
    prompts (whether it has many tokens or few) and of its samples: there is a step for each of these, with the masks for
    its tokens.
    """
    context = min(max_model_len, LONGEST_CONTEXT)
    rows = min(config.max_num_seqs, config.max_num_batched_tokens)
    longest = min(config.max_num_batched_tokens, max_model_len)
    most = min(config.max_num_batched_tokens, rows * longest)
    board = np.full((1, -(-vocab_size // 32)), -1, np.int32)
    none = Masks({}, board)
    yield _step(_chunks(most, longest, rows), 0, context), none  # the most tokens, the most samples, and all but the longest chunk
    yield _step([1] * rows, rows, context), none
    yield _step([1], 0, context, PENALISED), Masks({0: 0}, board)
    for tokens in _powers(min(most, MANY)):
        yield _step(_chunks(tokens, longest, -(-tokens // longest)), 0, context), none
    for prompts in sorted({*_powers(rows), rows}):
        yield _step([1] * prompts, 0, context), none
        yield _step(_chunks(max(prompts, min(most, MANY)), longest, prompts), 0, context), none
    for decodes in sorted({*_powers(rows - 1), rows - 1} - {0}):
        yield _step([1] * decodes + [1], decodes, context), none


def _powers(most: int) -> list[int]:
    return [2**exponent for exponent in range(most.bit_length())]


def _chunks(tokens: int, longest: int, rows: int) -> list[int]:
    """``tokens`` in chunks of ``rows`` prompts, the first of them as long as that lets them be."""
    chunks: list[int] = []
    while len(chunks) < rows:
        chunks.append(min(longest, tokens - sum(chunks) - (rows - len(chunks) - 1)))
    return chunks


def _step(query_lens: Sequence[int], num_decodes: int, context: int, sampling: SamplingParams = SAMPLING) -> StepInput:
    """Decodes of ``context`` tokens, then whole prompts."""
    rows, queries = len(query_lens), np.array(query_lens)
    prompt = np.zeros(1, np.int32)
    return StepInput(
        starts=[RowStart(row, prompt, 1, sampling, 0, row, (), False) for row in range(rows)],
        pages=np.zeros((0, 3), np.int32),
        rows=np.arange(rows),
        token_ids=np.zeros(queries[num_decodes:].sum(), np.int32),
        query_lens=queries,
        context_lens=np.where(np.arange(rows) < num_decodes, context, queries),
        num_decodes=num_decodes,
        samples=np.ones(rows, np.bool_),
    )
