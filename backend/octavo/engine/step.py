"""``StepInput`` and ``StepOutput``: one step of the device, as arrays. The scheduler sees no tensor, the runner no request."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from octavo.engine.messages import TokenLogprobs
from octavo.sampling import SamplingParams


class KVSpec(NamedTuple):
    """The shape of one group's cache: a page holds ``page_size`` tokens of keys and values for every layer of the group.

    In memory a page is contiguous: [layer, K/V, KV head, token, dim].
    """

    page_size: int
    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype_bytes: int

    @property
    def bytes_per_page(self) -> int:
        """Bytes that one page takes on the device."""
        return self.page_size * self.num_layers * 2 * self.num_kv_heads * self.head_dim * self.dtype_bytes


class RowStart(NamedTuple):
    """A request takes row ``row`` of the device's state: what the sampler has to know about it from now on.

    ``token_ids``: int32, prompt and everything generated so far (after a preemption there is some). ``seed`` is resolved.
    ``eos_token_ids`` are those that ``min_tokens`` holds back, empty under ``ignore_eos``. ``scores_prompt``: whether the
    logprobs of its prompt are wanted.
    """

    row: int
    token_ids: np.ndarray
    num_prompt_tokens: int
    sampling: SamplingParams
    sample_index: int
    seed: int
    eos_token_ids: tuple[int, ...]
    scores_prompt: bool


class StepInput(NamedTuple):
    """One step over R rows. Rows that decode (the token that was last drawn for them) come first, prefill chunks after them.

    ``starts``: rows taken since the last step, to be set up before anything else.
    ``pages``: int32 [K, 3], what has changed in the rows' page tables since the last step: row, place in its table, page.
    ``rows``: int64 [R], the persistent row of each. ``token_ids``: int32, the tokens of the chunks, one after the other: a
    decoding row's token never leaves the device.
    ``query_lens``: int64 [R], tokens of each row in this step.
    ``context_lens``: int64 [R], tokens of each row in the cache when the step is done; a row's positions are
    ``context_len - query_len`` up to ``context_len - 1``.
    ``num_decodes``: how many rows decode.
    ``samples``: bool [R], whether the row's last position yields a token (false while a prompt is not complete).
    """

    starts: list[RowStart]
    pages: np.ndarray
    rows: np.ndarray
    token_ids: np.ndarray
    query_lens: np.ndarray
    context_lens: np.ndarray
    num_decodes: int
    samples: np.ndarray


class Masks(NamedTuple):
    """What may come next in those rows that may not say just anything: ``places[row]`` is where it stands on ``board``.

    ``board``: int32 [P, ceil(V / 32)], see ``apply_mask``. What stands at these places stays until the device has drawn, as it may
    read it only then: a row's next mask is not asked for before its token has come back, and a place that is another's sooner
    was that of a row that has been left, whose token nobody takes.
    """

    places: Mapping[int, int]
    board: np.ndarray


class StepOutput(NamedTuple):
    """What a step made, by position in ``StepInput.rows`` (0 .. R-1).

    ``token_ids``: int64 [R, most], the new tokens of each row, padded with -1 (a row that does not sample has none).
    ``logprobs[r]``: one entry per new token, for rows that asked. ``prompt_logprobs[r]``: one entry per prompt position
    that this step *scored* (position p is scored by the logits at p - 1), for rows that asked.
    """

    token_ids: np.ndarray
    logprobs: dict[int, list[TokenLogprobs]]
    prompt_logprobs: dict[int, list[TokenLogprobs]]
