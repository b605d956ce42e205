"""``Matcher``: which tokens a grammar lets follow, over the ``llguidance`` library. Knows a vocabulary, no process."""

import json
import re
import time
from collections.abc import Iterable, Sequence
from itertools import compress
from typing import NamedTuple

import numpy as np
from llguidance import LLExecutor, LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper, grammar_from
from llguidance.numpy import fill_next_token_bitmask, fill_next_token_bitmask_par

from octavo.engine.follower import Grammar
from octavo.errors import InvalidRequest
from octavo.structured_outputs import Thoughts
from octavo.text.tokenizer import Tokenizer
from octavo.text.tools.format import JSON_OPTIONS, lark_marker

_LIMITS = LLParserLimits(verbose_errors=False)
_MAX_REASON = 200
_ANSWER, _MOST_BLANKS = "answer", 8
# Tokens of one of these are allowed or forbidden together wherever all of them may come, and need not be walked through one by one:
# the library's own slices are for JSON's strings, these for words in regular expressions.
_SLICES = [f"{characters}{{1,10}}" for characters in ("[a-z]", "[a-z ]", "[A-Za-z]", "[A-Za-z ]", "[A-Za-z0-9]", "[A-Za-z0-9 ]")]


# Seconds. Threads that sleep take a few tenths of a millisecond to wake: four made 64 masks of 3 us each no sooner than one alone.
_WORTH_WAKING = 1e-3
# The first masks after a while take several times as long as the others.
_KNOWN_AFTER = 3e-4
# Where a mask that allows anything nearly always has a bit: single bytes have the lowest ids.
_LIKELY_WORDS = 64


class _Wrapper(TokenizerWrapper):
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


class Vocabulary(NamedTuple):
    """What a ``Matcher`` is made with."""

    tokenizer: Tokenizer
    tokens: LLTokenizer


def load_vocabulary(tokenizer: Tokenizer, vocab_size: int, eos_token_ids: Iterable[int]) -> Vocabulary:
    """``vocab_size``: how many logits there are; ``eos_token_ids``: what ends an answer."""
    eos = [*eos_token_ids]
    slices = [*_SLICES, *LLTokenizer.general_slices()]
    return Vocabulary(tokenizer, LLTokenizer(_Wrapper(tokenizer, vocab_size, eos[0]), eos_token=eos, slices=slices))


class Matcher:
    """One answer's place in a grammar."""

    def __init__(self, matcher: LLMatcher, kind: str, vocab_size: int) -> None:
        """See ``compiled``."""
        self._matcher = matcher
        self._kind = kind
        self._vocab_size = vocab_size

    @classmethod
    def compiled(cls, vocabulary: Vocabulary, grammar: Grammar) -> "Matcher":
        """At the beginning of ``grammar``. Raises ``InvalidRequest``."""
        try:
            text = _read(grammar.kind, grammar.text)
            if grammar.thoughts is not None:
                text = _after(grammar.thoughts, text, vocabulary.tokenizer)
            matcher = LLMatcher(vocabulary.tokens, text, log_level=0, limits=_LIMITS)
        except (Exception, RecursionError) as error:  # the library's converter raises bare Exception
            raise _refusal(grammar.kind, str(error)) from error
        made = cls(matcher, grammar.kind, vocabulary.tokens.vocab_size)
        made._check()
        return made

    def copy(self) -> "Matcher":
        """Another one, at the same place."""
        return Matcher(self._matcher.deep_copy(), self._kind, self._vocab_size)

    def mask(self) -> bytes:
        """What may come next: bits by token id. Raises ``InvalidRequest`` where nothing may, which is the grammar's mistake."""
        mask = np.zeros((1, -(-self._vocab_size // 32)), np.int32)
        fill_next_token_bitmask(self._matcher, mask)
        self._check()
        if not mask.any():
            raise self._refusal()
        return mask.tobytes()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise self._refusal()

    @staticmethod
    def advance_all(
        matchers: Sequence["Matcher"], tokens: Sequence[int], places: Sequence[int], masks: np.ndarray, executor: LLExecutor
    ) -> dict[int, str]:
        """Each of ``matchers`` goes on with a token, and what may come then is written to a place in ``masks``, int32 [P, words].

        The threads of ``executor`` share the masks where that pays. Returns by place why there is none.
        """
        ours = [matcher._matcher for matcher in matchers]
        went = [matcher.consume_token(token) for matcher, token in zip(ours, tokens, strict=True)]
        _fill([*compress(zip(ours, places, strict=True), went)], masks, executor)
        likely = np.logical_or.reduce(masks[[*places], :_LIKELY_WORDS], axis=1).tolist()
        errors = {}
        for matcher, place, some in zip(matchers, places, likely, strict=True):
            if matcher._matcher.is_error() or not (some or masks[place].any()):
                errors[place] = str(matcher._refusal())
        return errors

    def _refusal(self) -> InvalidRequest:
        return _refusal(self._kind, self._matcher.get_error() if self._matcher.is_error() else "no token can follow here")


def _fill(matchers: list[tuple[LLMatcher, int]], masks: np.ndarray, executor: LLExecutor) -> None:
    """Write the mask of each, to its place in ``masks``: one by one, unless it turns out that it pays to wake others."""
    first, size = masks.ctypes.data, masks.strides[0]
    start = time.perf_counter()
    for done, (matcher, place) in enumerate(matchers, 1):
        matcher.unsafe_compute_mask_ptr(first + place * size, size)
        spent = time.perf_counter() - start
        if spent > _KNOWN_AFTER and spent / done * (len(matchers) - done) > _WORTH_WAKING:
            fill_next_token_bitmask_par(executor, matchers[done:], masks)
            return


def _read(kind: str, text: str) -> str:
    """A grammar in the library's own words."""
    if kind == "json":
        return LLMatcher.grammar_from_json_schema(text, overrides=JSON_OPTIONS["x-guidance"])
    return grammar_from("regex" if kind == "regex" else "choice" if kind == "choice" else "grammar", text)


def _after(thoughts: Thoughts, text: str, tokenizer: Tokenizer) -> str:
    """The grammar ``text`` with thoughts before it: any text, up to the first place where their end stands."""
    try:
        grammars = json.loads(text)["grammars"]
    except ValueError:  # one grammar, and not a list of them
        grammars = [{"lark_grammar": text}]
    grammars[0]["name"] = _ANSWER
    start = f"{lark_marker(tokenizer, thoughts.start)} " if thoughts.start else ""
    if tokenizer.special_id(thoughts.end) is None:
        rules = f"thought[lazy]: /(.|\\n)*{_lark_regex(thoughts.end)}/"
    else:
        rules = f"thought: /(.|\\n)*/ {lark_marker(tokenizer, thoughts.end)}"
    some = f"({start}thought BLANKS)" + ("?" if start else "")
    before = f"%llguidance {{}}\nstart: {some} @{_ANSWER}\n{rules}\nBLANKS: /[ \\n]{{0,{_MOST_BLANKS}}}/"
    return json.dumps({"grammars": [{"lark_grammar": before}, *grammars]})


def _lark_regex(text: str) -> str:
    return re.escape(text).replace("/", "\\/")


def _refusal(kind: str, reason: str) -> InvalidRequest:
    first = " ".join(reason.split())[:_MAX_REASON]
    return InvalidRequest(f"structured_outputs.{kind} must be one that can be followed: {first}")
