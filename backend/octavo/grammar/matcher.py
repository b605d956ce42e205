"""``Matcher``: which tokens a grammar lets follow, over the ``llguidance`` library. Knows a vocabulary, no process."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper, grammar_from
from llguidance.numpy import fill_next_token_bitmask

from octavo.errors import InvalidRequest
from octavo.text.tokenizer import Tokenizer

# Endless blanks are valid JSON, and what a model may fall into.
_JSON_OPTIONS: Any = {"whitespace_pattern": r"[ \n\t]{0,20}"}
_LIMITS = LLParserLimits(verbose_errors=False)
_MAX_REASON = 200


class _Vocabulary(TokenizerWrapper):
    """The tokens as ``LLTokenizer`` asks for them."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos: int) -> None:
        """Ids beyond the tokenizer's stand for nothing, up to ``vocab_size``."""
        self.eos_token_id = eos
        self.tokens = [tokenizer.token_bytes(token) for token in range(vocab_size)]
        self.special_token_ids = sorted(token for token in tokenizer.special_ids if token < vocab_size)
        self._tokenizer = tokenizer

    def __call__(self, text: str | bytes) -> list[int]:
        """The ids of ``text``."""
        return self._tokenizer.encode(text if isinstance(text, str) else text.decode(errors="replace"), False)


def load_vocabulary(tokenizer: Tokenizer, vocab_size: int, eos_token_ids: Iterable[int]) -> LLTokenizer:
    """What a ``Matcher`` is made with."""
    eos = [*eos_token_ids]
    return LLTokenizer(_Vocabulary(tokenizer, vocab_size, eos[0]), eos_token=eos)


class Matcher:
    """One answer's place in a grammar."""

    def __init__(self, matcher: LLMatcher, kind: str, vocab_size: int) -> None:
        """See ``compiled``."""
        self._matcher = matcher
        self._kind = kind
        self._mask = np.zeros((1, -(-vocab_size // 32)), np.int32)

    @classmethod
    def compiled(cls, vocabulary: LLTokenizer, kind: str, text: str) -> "Matcher":
        """At the beginning of the grammar ``text``. Raises ``InvalidRequest``."""
        try:
            if kind == "json":
                grammar = LLMatcher.grammar_from_json_schema(text, overrides=_JSON_OPTIONS)
            else:
                grammar = grammar_from("regex" if kind == "regex" else "choice" if kind == "choice" else "grammar", text)
            matcher = LLMatcher(vocabulary, grammar, log_level=0, limits=_LIMITS)
        except (Exception, RecursionError) as error:  # the library's converter raises bare Exception
            raise _refusal(kind, str(error)) from error
        made = cls(matcher, kind, vocabulary.vocab_size)
        made._check()
        return made

    def copy(self) -> "Matcher":
        """Another one, at the same place."""
        return Matcher(self._matcher.deep_copy(), self._kind, 32 * self._mask.shape[1])

    def advance(self, token: int) -> None:
        """The answer goes on with ``token``. Raises ``InvalidRequest``."""
        self._matcher.consume_token(token)
        self._check()

    def mask(self) -> bytes:
        """What may come next: bits by token id. Raises ``InvalidRequest`` where nothing may, which is the grammar's mistake."""
        fill_next_token_bitmask(self._matcher, self._mask)
        self._check()
        if not self._mask.any():
            raise _refusal(self._kind, "no token can follow here")
        return self._mask.tobytes()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise _refusal(self._kind, self._matcher.get_error())


def _refusal(kind: str, reason: str) -> InvalidRequest:
    first = " ".join(reason.split())[:_MAX_REASON]
    return InvalidRequest(f"structured_outputs.{kind} must be one that can be followed: {first}")
