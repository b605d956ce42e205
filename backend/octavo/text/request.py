"""``GenerateRequest`` and ``GenerateChunk``: what every dialect asks for and gets back. No wire format is known here."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from octavo.engine.messages import TokenLogprobs
from octavo.errors import InvalidRequest
from octavo.sampling import SamplingParams
from octavo.text.reasoning import Reasoning

MAX_PROMPTS = 128
MAX_SAMPLES_OF_ALL = 1024


class Conversation(msgspec.Struct, frozen=True):
    """Chat messages, for the model's chat template to spell: each has a ``role``, and a ``content`` that is text or None.

    ``variables``, ``continue_final_message``: see ``ChatTemplate.render``. ``add_special_tokens``: put before the prompt what the
    tokenizer does, although templates mostly do.
    """

    messages: list[dict[str, Any]]
    variables: dict[str, Any] = {}
    continue_final_message: bool = False
    add_special_tokens: bool = False

    @property
    def num_characters(self) -> int:
        """How long the contents, the calls and the tools are, all together. Raises ``InvalidRequest`` if they cannot be written."""
        contents = sum(len(message["content"] or "") for message in self.messages)
        rest = [calls for message in self.messages if (calls := message.get("tool_calls"))]
        if tools := self.variables.get("tools"):
            rest.append(tools)
        return contents + (_num_bytes(rest) if rest else 0)


def _num_bytes(value: Any) -> int:
    try:
        return len(msgspec.json.encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise InvalidRequest("A conversation must hold nothing but what JSON can hold, nested less deeply.") from None


Prompt: TypeAlias = str | list[int] | Conversation


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One or more prompts to be continued by one model, each ``sampling.n`` times.

    A prompt is text, token ids or a conversation. ``id`` is the client's own name for it, which nothing relies on to be unique.
    ``stream`` False yields one chunk with everything. ``priority``: smaller is served first. ``queue_timeout``: seconds.
    ``markers``: special tokens that are in the text all the same. ``reasoning``: what precedes an answer and follows no grammar.
    ``stop_words``, ``bad_words``: token ids that end an answer, and that are never written, beside those of ``sampling``.
    """

    model: str
    version: int
    prompts: list[Prompt]
    sampling: SamplingParams
    id: str = ""
    stream: bool = False
    priority: int = 0
    queue_timeout: float | None = None
    cache_salt: str = ""
    markers: tuple[str, ...] = ()
    reasoning: Reasoning | None = None
    stop_words: Sequence[tuple[int, ...]] = ()
    bad_words: Sequence[tuple[int, ...]] = ()


class SampleDelta(msgspec.Struct, frozen=True, gc=False):
    """What is new in one sample since the last chunk. ``finish_reason`` is vLLM's name, None while it goes on.

    ``cumulative_logprob``: sum over all tokens of the sample so far, None unless logprobs were asked for.
    ``logprobs``: one entry per new token id.
    """

    text: str = ""
    token_ids: list[int] = []
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    cumulative_logprob: float | None = None
    logprobs: list[TokenLogprobs] | None = None


class GenerateChunk(msgspec.Struct, frozen=True, gc=False):
    """The next piece of an answer: one delta per sample, all of the first prompt's before those of the second.

    Exactly one chunk of a request, the last, is ``final``. ``prompt_token_ids`` has a list per prompt; so has
    ``prompt_logprobs``, once they are there, and only once. ``num_cached_tokens`` is of all prompts.
    """

    samples: list[SampleDelta]
    final: bool
    prompt_token_ids: list[list[int]]
    num_cached_tokens: int = 0
    prompt_logprobs: list[list[TokenLogprobs | None] | None] | None = None
