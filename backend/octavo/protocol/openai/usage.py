"""``Usage``: how many tokens a request took and made, as bodies and chunks tell of it."""

import msgspec
from msgspec import UNSET, UnsetType

from octavo.text.request import GenerateChunk


class PromptDetails(msgspec.Struct):
    """``cached_tokens``: how many of the prompt's needed no computing."""

    cached_tokens: int


class CompletionDetails(msgspec.Struct):
    """``reasoning_tokens``: how many of the answers' were spent on reasoning."""

    reasoning_tokens: int


class Usage(msgspec.Struct):
    """Tokens of all prompts, each counted once, and of all answers."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails | UnsetType = UNSET

    @staticmethod
    def of(chunk: GenerateChunk, completion_tokens: int, reasoning_tokens: int | None = None) -> "Usage":
        """After ``chunk``, with ``completion_tokens`` so far; ``reasoning_tokens`` None: of a model that does not reason."""
        prompt_tokens = sum(map(len, chunk.prompt_token_ids))
        details = PromptDetails(chunk.num_cached_tokens)
        reasoning = UNSET if reasoning_tokens is None else CompletionDetails(reasoning_tokens)
        return Usage(prompt_tokens, completion_tokens, prompt_tokens + completion_tokens, details, reasoning)
