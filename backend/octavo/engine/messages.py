"""What crosses the socket between front ends and one engine: token ids in, token ids out. No text, no tensor, no pickle."""

from collections.abc import Iterator
from enum import IntEnum

import msgspec

from octavo.errors import ErrorFrame
from octavo.sampling import SamplingParams
from octavo.structured_outputs import Thoughts


class FinishReason(IntEnum):
    """Why a request ended; ``label`` is the name that vLLM gives it."""

    STOP = 1
    LENGTH = 2
    ERROR = 3

    @property
    def label(self) -> str:
        """``stop``, ``length`` or ``error``."""
        return self.name.lower()


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """One position: the chosen (or given) token first, then the k most likely. Natural logarithms; ranks count from 1."""

    token_ids: list[int]
    logprobs: list[float]
    ranks: list[int]


class EngineRequest(msgspec.Struct, frozen=True, array_like=True):
    """One sample of one prompt. ``id`` is the front end's own and unique there; a client's id never reaches the engine.

    ``priority``: smaller is served first. ``queue_timeout``: seconds that the request may wait before its first step.
    ``cache_salt`` separates prefix caches. ``thoughts``: what may or must come before an answer that follows a grammar.
    ``bad_words``: token ids of what is never written, in place of the text of ``sampling.bad_words``.
    ``sampling.n`` is ignored here: the front end sends one request per sample,
    numbered by ``sample_index``.
    """

    id: int
    prompt_token_ids: list[int]
    sampling: SamplingParams
    sample_index: int = 0
    priority: int = 0
    queue_timeout: float | None = None
    cache_salt: str = ""
    thoughts: Thoughts | None = None
    bad_words: list[list[int]] = []


class EngineOutput(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one step made for one request: 0 or more new tokens, and the end if it came.

    The token that stopped the request (end of sequence or a stop token) is the last of ``token_ids``, and
    ``stop_token_id`` repeats it. ``num_cached_tokens`` (prompt tokens found in the prefix cache), ``queue_seconds`` and
    ``prompt_logprobs`` (one entry per prompt token, None for the first) are set on the first output only.
    """

    id: int
    token_ids: list[int] = []
    finish: FinishReason | None = None
    stop_token_id: int | None = None
    error: ErrorFrame | None = None
    logprobs: list[TokenLogprobs] | None = None
    num_cached_tokens: int | None = None
    queue_seconds: float | None = None
    prompt_logprobs: list[TokenLogprobs | None] | None = None


class EngineFrame(msgspec.Struct, array_like=True):
    """All that one step made for one front end.

    ``ids`` and ``token_ids``: int64 in the machine's order, equally many; the i-th token is one more for the i-th request, which is
    what most outputs of a large batch come to. All others, those that say more, are ``outputs``.
    """

    ids: bytes = b""
    token_ids: bytes = b""
    outputs: list[EngineOutput] = []

    def tokens(self) -> Iterator[tuple[int, int]]:
        """Each of those requests with its token."""
        return zip(memoryview(self.ids).cast("q"), memoryview(self.token_ids).cast("q"), strict=True)


class Submit(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Front end to engine: serve these."""

    requests: list[EngineRequest]


class Abort(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """Front end to engine: stop these and free their pages; unknown ids are ignored. No output follows."""

    ids: list[int]


EngineCommand = Submit | Abort


class EngineInfo(msgspec.Struct, frozen=True):
    """What an engine says of itself once it is ready. ``device_bytes``: the size of its GPU, 0 on a CPU."""

    max_model_len: int
    vocab_size: int
    page_size: int
    num_pages: int
    dtype: str
    eos_token_ids: list[int]
    weights_bytes: int
    max_logprobs: int
    device: str = "cpu"
    device_bytes: int = 0


class EngineStats(msgspec.Struct, frozen=True):
    """A reading of one engine. The first four are levels, the rest only grow."""

    running: int = 0
    waiting: int = 0
    pages_used: int = 0
    pages_total: int = 0
    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0


class RunningRequest(msgspec.Struct, frozen=True, array_like=True):
    """A running request as anybody may see it: its number in the order of arrival, and how much, never what.

    ``tokens``: prompt and answer so far. ``seconds``: since its first step.
    """

    number: int
    prompt_tokens: int
    tokens: int
    pages: int
    seconds: float


class Picture(msgspec.Struct, frozen=True):
    """One engine at the moment ``taken_at``, in seconds on its own clock.

    ``cells``: uint16 little-endian, one for every ``pages_per_cell`` pages in their order, and what most of them are: 0 free,
    1 free and holding a known prefix, 2 held by several requests, 3 + n held by ``requests[n]`` alone. ``pages_cached``: how
    many pages there are of the second kind.
    """

    taken_at: float
    stats: EngineStats
    requests: list[RunningRequest]
    pages_cached: int
    pages_per_cell: int
    cells: bytes
