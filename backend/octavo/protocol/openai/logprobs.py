"""Log probabilities as the OpenAI API has them: of chat completions, of completions, and vLLM's of prompts."""

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from octavo.engine.messages import TokenLogprobs
from octavo.text.detokenizer import Detokenizer
from octavo.text.tokenizer import Tokenizer

# JSON has no infinity; OpenAI writes this for a token that is as good as impossible.
IMPOSSIBLE = -9999.0


class TopLogprob(msgspec.Struct):
    """A token that might have come."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(msgspec.Struct):
    """A token that came, and the likeliest at its place."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChatLogprobs(msgspec.Struct):
    """Of a piece of a chat completion."""

    content: list[TokenLogprob]
    refusal: None = None


class TextLogprobs(msgspec.Struct):
    """Of a piece of a completion, one entry a token in each list; ``text_offset``: see ``Offsets``."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class Offsets:
    """Where the tokens of a text begin in it, in characters. One that goes on with a character begins where that does.

    ``end``: where the text ends, but for a character that is unfinished.
    """

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool, start: int = 0) -> None:
        """The text begins at ``start``."""
        self._whole_texts = tokenizer.whole_texts
        self._detokenizer = Detokenizer(tokenizer, skip_special_tokens)
        self.end = start

    def next(self, token_id: int) -> int:
        """Of one more token."""
        begin, text = self.end, self._detokenizer.push(token_id)
        self.end += len(text)
        whole = self._whole_texts[token_id]
        return self.end - len(whole) if text and whole is not None else begin  # behind a character that ends unfinished


class PromptLogprob(msgspec.Struct):
    """Of one token that stands in a prompt, or might have."""

    logprob: float
    rank: int
    decoded_token: str


class Speller(NamedTuple):
    """Tokens as texts; ``as_ids``: as ``token_id:7`` instead, which every token can be told apart by."""

    tokenizer: Tokenizer
    as_ids: bool

    def text(self, token_id: int) -> str:
        """A token on its own."""
        return f"token_id:{token_id}" if self.as_ids else self.tokenizer.token_text(token_id)

    def chat(self, entries: Iterable[TokenLogprobs]) -> ChatLogprobs:
        """One entry for each token."""
        return ChatLogprobs([self.token(entry) for entry in entries])

    def token(self, entry: TokenLogprobs) -> TokenLogprob:
        """The token that came, and those that might have."""
        chosen, *best = [self._top(*pair) for pair in zip(entry.token_ids, entry.logprobs, strict=True)]
        return TokenLogprob(chosen.token, chosen.logprob, chosen.bytes, best)

    def texts(self, tokens: Iterable[tuple[int, TokenLogprobs | None]], offsets: Iterable[int]) -> TextLogprobs:
        """Of ``tokens``, which begin at ``offsets``; one without logprobs has null."""
        told = TextLogprobs([], [], [], [])
        for (token_id, entry), offset in zip(tokens, offsets, strict=True):
            told.tokens.append(self.text(token_id))
            told.token_logprobs.append(None if entry is None else max(entry.logprobs[0], IMPOSSIBLE))
            told.top_logprobs.append(None if entry is None else self._by_text(entry))
            told.text_offset.append(offset)
        return told

    def prompt(self, entries: list[TokenLogprobs | None]) -> list[dict[int, PromptLogprob] | None]:
        """vLLM's: an object by token id for each token of a prompt, null for the first."""
        return [None if entry is None else self._by_id(entry) for entry in entries]

    def _top(self, token_id: int, logprob: float) -> TopLogprob:
        return TopLogprob(self.text(token_id), max(logprob, IMPOSSIBLE), list(self.tokenizer.token_bytes(token_id)))

    def _by_text(self, entry: TokenLogprobs) -> dict[str, float]:
        """Two tokens may read alike; the first counts, which is the one that came or else the likelier one."""
        best: dict[str, float] = {}
        for token_id, logprob in zip(entry.token_ids, entry.logprobs, strict=True):
            best.setdefault(self.text(token_id), max(logprob, IMPOSSIBLE))
        return best

    def _by_id(self, entry: TokenLogprobs) -> dict[int, PromptLogprob]:
        return {
            token_id: PromptLogprob(max(logprob, IMPOSSIBLE), rank, self.text(token_id))
            for token_id, logprob, rank in zip(entry.token_ids, entry.logprobs, entry.ranks, strict=True)
        }
