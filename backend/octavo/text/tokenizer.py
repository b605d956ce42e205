"""``Tokenizer``: a model's text to token ids and back, over the ``tokenizers`` library. Knows no request.

Loads from a Hugging Face snapshot (``tokenizer.json``) or from a GGUF file's metadata, without ``transformers``.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers.processors import TemplateProcessing

from octavo.engine.helper import Helper
from octavo.errors import InvalidRequest, LoadFailed
from octavo.models.gguf_file import GgufFile
from octavo.text import gguf_tokenizer
from octavo.text.chat_template import SPECIAL_TOKENS, ChatTemplate
from octavo.text.spelling import Spelling

MAX_COMPOSED = 4  # Unicode's NFC makes one character of at most four


class Tokenizer:
    """One model's tokenizer. Thread-safe; ``encode`` releases the GIL while it works.

    ``eos_token_ids``: what the tokenizer itself calls the end of a sequence (the model's configuration may name more).
    ``special_ids``: ids that ``skip_special_tokens`` leaves out of a text.
    ``longest_token``: the most characters that one token can stand for, so a text of n has at least n / longest_token.
    ``chat_template``: how a conversation is spelled, None if the model does not say.
    ``special_tokens``: texts by the names of ``SPECIAL_TOKENS``, as far as the model has them.
    ``whole_texts``: each token's own text if it stands for whole characters, else None.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        eos_token_ids: Iterable[int] = (),
        chat_template: ChatTemplate | None = None,
        special_tokens: Mapping[str, str] | None = None,
    ) -> None:
        """Take over ``backend``. Raises ``LoadFailed`` if its decoder is of an unknown kind."""
        spelling = Spelling.of(backend)
        if spelling is None:
            raise LoadFailed("The tokenizer's decoder is not supported; supported are byte-level and SentencePiece ones.")
        backend.no_truncation()
        backend.no_padding()
        self.backend = backend
        self._spelling = spelling
        self._bytes: dict[int, bytes] = {}
        self.whole_texts: Mapping[int, str | None] = _WholeTexts(self.token_bytes)
        self.eos_token_ids = tuple(eos_token_ids)
        self.chat_template = chat_template
        self.special_tokens = dict(special_tokens or {})
        self.special_ids = frozenset(i for i, token in backend.get_added_tokens_decoder().items() if token.special)
        composed = 1 if backend.normalizer is None else MAX_COMPOSED
        self.longest_token = composed * max(map(len, backend.get_vocab()), default=1)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The ids of ``text``, by default with what the model wants before and after it. Special tokens are recognised."""
        try:
            return self.backend.encode_batch_fast([text], add_special_tokens=add_special_tokens)[0].ids
        except (UnicodeEncodeError, TypeError) as error:
            raise InvalidRequest("The prompt is not valid Unicode text.") from error

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text; empty for an id outside the vocabulary."""
        known = self._bytes.get(token_id)
        return known if known is not None else self._look_up(token_id)

    def token_text(self, token_id: int) -> str:
        """A token on its own, as a reader would see it; parts of a character show as U+FFFD."""
        return self.token_bytes(token_id).decode(errors="replace")

    def decode(self, token_ids: Iterable[int]) -> str:
        """The text of some tokens, special ones included; parts of a character show as U+FFFD."""
        return b"".join(map(self.token_bytes, token_ids)).decode(errors="replace")

    def special_id(self, text: str) -> int | None:
        """The id of a special token, None if ``text`` is none."""
        token_id = self.backend.token_to_id(text)
        return token_id if token_id in self.special_ids else None

    def _look_up(self, token_id: int) -> bytes:
        token = self.backend.id_to_token(token_id) if 0 <= token_id < 2**32 else None
        if token is None:
            return b""
        spelled = self._bytes[token_id] = self._spelling.token_bytes(token)
        return spelled


class _WholeTexts(dict[int, str | None]):
    """Filled as it is asked. Ids outside the vocabulary, of which there are many, are not kept."""

    def __init__(self, token_bytes: Callable[[int], bytes]) -> None:
        self._token_bytes = token_bytes

    def __missing__(self, token_id: int) -> str | None:
        spelled = self._token_bytes(token_id)
        text = spelled.decode(errors="replace")
        whole = text if text.encode() == spelled else None
        if spelled:
            self[token_id] = whole
        return whole


def load_tokenizer(path: str | Path, helper: Helper | None = None) -> Tokenizer:
    """The tokenizer of a snapshot's folder, a ``tokenizer.json`` or a ``.gguf`` file. Raises ``LoadFailed``.

    ``helper``: see ``ChatTemplate``.
    """
    place = Path(path)
    if place.suffix == ".gguf":
        return _from_gguf(place, helper)
    file = place / "tokenizer.json" if place.is_dir() else place
    if not file.is_file():
        raise LoadFailed(f"The folder '{place.name}' has no tokenizer.json, which is where the tokenizer is read from.")
    return _from_snapshot(file, helper)


def _from_gguf(path: Path, helper: Helper | None) -> Tokenizer:
    metadata = GgufFile(path).metadata
    built = gguf_tokenizer.build(metadata)
    bos, eos = built.bos_token_id, built.eos_token_id
    _wrap_prompts(built.backend, bos if built.add_bos else None, eos if built.add_eos else None)
    template = metadata.get("tokenizer.chat_template")
    ids = {"bos_token": bos, "eos_token": eos, "unk_token": built.unk_token_id, "pad_token": built.pad_token_id}
    special = {name: built.backend.id_to_token(i) or "" for name, i in ids.items() if i is not None}
    chat = ChatTemplate(template, special, helper) if isinstance(template, str) else None
    return Tokenizer(built.backend, [] if eos is None else [eos], chat, special)


def _from_snapshot(file: Path, helper: Helper | None) -> Tokenizer:
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception for every mistake in the file
        raise LoadFailed(f"The file '{file.name}' is not a tokenizer that the tokenizers library can read.") from error
    config = _read_config(file.with_name("tokenizer_config.json"))
    bos, eos = (backend.token_to_id(_content(config.get(key))) for key in ("bos_token", "eos_token"))
    if "add_bos_token" in config or "add_eos_token" in config:
        _wrap_prompts(backend, bos if config.get("add_bos_token") else None, eos if config.get("add_eos_token") else None)
    special = {name: _content(config[name]) for name in SPECIAL_TOKENS if config.get(name)}
    source = _chat_template(file.parent, config)
    chat = ChatTemplate(source, special, helper) if source is not None else None
    return Tokenizer(backend, [] if eos is None else [eos], chat, special)


def _chat_template(folder: Path, config: dict[str, Any]) -> str | None:
    """The source of ``chat_template.jinja`` or else of the configuration, which may have several and then a default."""
    file = folder / "chat_template.jinja"
    source = config.get("chat_template")
    if file.is_file():
        return file.read_text(errors="replace")
    if isinstance(source, list):
        named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
        source = named.get("default")
    return source if isinstance(source, str) else None


def _wrap_prompts(backend: tokenizers.Tokenizer, bos: int | None, eos: int | None) -> None:
    """Put ``bos`` before and ``eos`` after every prompt, and nothing else."""
    around = [(backend.id_to_token(i), i) for i in (bos, eos) if i is not None]
    before, after = ("$A" if i is None else backend.id_to_token(i) for i in (bos, eos))
    single = [before] * (bos is not None) + ["$A"] + [after] * (eos is not None)
    backend.post_processor = TemplateProcessing(single=single, special_tokens=around)


def _read_config(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        config = json.loads(file.read_bytes())
    except ValueError as error:
        raise LoadFailed(f"The file '{file.name}' is not valid JSON.") from error
    return config if isinstance(config, dict) else {}


def _content(token: Any) -> str:
    """A special token's text, which the file gives as a string or as an object."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")
