"""``Detokenizer``: token ids to text as they come, never half a character. Knows no stop strings.

A token stands for bytes, so the text so far is the lossy UTF-8 reading of their concatenation, and an incremental decoder
yields exactly its next characters: linear time, and equal to decoding everything at once (``tokenizers.DecodeStream``
fails on tokens that are no valid UTF-8). Text continues the prompt's: a leading space of the first token is kept.
"""

import codecs
from collections.abc import Collection

from octavo.text.tokenizer import Tokenizer

_new_decoder = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """The text of one sample. Ids outside the vocabulary add nothing."""

    __slots__ = ("_decoder", "_skipped", "_tokenizer", "_unfinished", "_whole_texts")

    def __init__(self, tokenizer: Tokenizer, skip_special_tokens: bool = True, markers: Collection[str] = ()) -> None:
        """Start an empty text. ``markers``: special tokens that are in it all the same."""
        self._tokenizer, self._whole_texts = tokenizer, tokenizer.whole_texts
        self._skipped = tokenizer.special_ids if skip_special_tokens else frozenset[int]()
        self._skipped -= {tokenizer.special_id(marker) for marker in markers}
        self._decoder = _new_decoder("replace")
        self._unfinished = False

    def push(self, token_id: int) -> str:
        """The characters that ``token_id`` completes, often none."""
        if token_id in self._skipped:
            return ""
        if not self._unfinished:
            whole = self._whole_texts[token_id]
            if whole is not None:
                return whole
        text = self._decoder.decode(self._tokenizer.token_bytes(token_id))
        self._unfinished = bool(self._decoder.getstate()[0])
        return text

    def finish(self) -> str:
        """What is left when no token follows: an unfinished character, as U+FFFD."""
        return self._decoder.decode(b"", final=True)
