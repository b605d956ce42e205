"""The prompts that ``LLM`` takes, in vLLM's forms, to the ones that the text floor knows. Knows no engine."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NotRequired, TypedDict

from octavo.errors import InvalidRequest, Unsupported
from octavo.text.request import Prompt

_KNOWN = {"prompt", "prompt_token_ids", "cache_salt"}


class TextPrompt(TypedDict):
    """A text. Requests share cached prefixes only with those of the same ``cache_salt``."""

    prompt: str
    cache_salt: NotRequired[str]


class TokensPrompt(TypedDict):
    """Token ids, to which nothing is added; ``prompt`` is their text, for the output only."""

    prompt_token_ids: list[int]
    prompt: NotRequired[str]
    cache_salt: NotRequired[str]


PromptType = str | list[int] | TextPrompt | TokensPrompt


class Given(NamedTuple):
    """One prompt, the text to show for it if there is one, and the salt of its cached prefixes."""

    prompt: Prompt
    text: str | None
    cache_salt: str = ""


def read_prompts(prompts: PromptType | Sequence[PromptType]) -> list[Given]:
    """One prompt or several, in order. Raises ``InvalidRequest`` or ``Unsupported``."""
    if isinstance(prompts, str | Mapping) or _is_token_ids(prompts):
        return [_read(prompts)]
    if not isinstance(prompts, Iterable):
        raise InvalidRequest(_expected(prompts))
    return [_read(prompt) for prompt in prompts]


def _read(prompt: Any) -> Given:
    if isinstance(prompt, str):
        return Given(prompt, prompt)
    if isinstance(prompt, Mapping):
        return _read_mapping(prompt)
    if isinstance(prompt, Iterable):
        return Given(_token_ids(prompt), None)
    raise InvalidRequest(_expected(prompt))


def _read_mapping(prompt: Mapping[str, Any]) -> Given:
    for key in prompt.keys() - _KNOWN:
        if prompt[key] is not None:
            raise Unsupported(f"A prompt with '{key}' is not supported; it can have prompt or prompt_token_ids, and cache_salt.")
    text, ids, salt = (prompt.get(key) for key in ("prompt", "prompt_token_ids", "cache_salt"))
    if not isinstance(text, str | None) or not isinstance(salt, str | None) or (text is None and ids is None):
        raise InvalidRequest("A prompt must have prompt, a string, or prompt_token_ids, token ids; cache_salt is a string.")
    return Given(_token_ids(ids) if text is None or ids is not None else text, text, salt or "")


def _is_token_ids(prompt: object) -> bool:
    """Whether this is one prompt of token ids rather than a list of prompts."""
    return isinstance(prompt, Sequence) and len(prompt) > 0 and hasattr(prompt[0], "__index__")


def _token_ids(ids: Any) -> list[int]:
    try:
        return [operator.index(token_id) for token_id in ids]
    except TypeError:
        raise InvalidRequest("A prompt of token ids must be a list of integers.") from None


def _expected(prompt: object) -> str:
    return f"A prompt must be a string, a list of token ids or a mapping, got {type(prompt).__name__}."
