"""``build``: a ``tokenizers.Tokenizer`` from a GGUF file's metadata. Knows the format's keys; reads no file.

A GGUF names its pre-tokenizer (``tokenizer.ggml.pre``) and leaves the regular expression to the reader: ``PRE_TOKENIZERS``
has those of the families that we serve. Ids equal those of ``transformers`` on the same file.
"""

from collections.abc import Iterable
from typing import NamedTuple

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from octavo.errors import LoadFailed
from octavo.models.gguf_file import Value
from octavo.text.spelling import BYTE_OF, CHARACTER_OF

_CONTROL = 3
_USER_DEFINED = 4


class PreTokenizer(NamedTuple):
    """How a byte-level vocabulary splits text. ``split`` None is GPT-2's own expression."""

    split: str | None = None
    nfc: bool = False
    ignore_merges: bool = False
    adds_bos: bool = False


_LLAMA3 = PreTokenizer(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ignore_merges=True,
    adds_bos=True,
)
_QWEN2 = PreTokenizer(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    nfc=True,
)
_TEKKEN = PreTokenizer(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    ignore_merges=True,
    adds_bos=True,
)
PRE_TOKENIZERS = {
    "gpt-2": PreTokenizer(),
    "smollm": PreTokenizer(),
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama-bpe": _LLAMA3,
    "smaug-bpe": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "tekken": _TEKKEN,
}


class GgufTokenizer(NamedTuple):
    """What the metadata say: the tokenizer, and which ids stand before and after every prompt."""

    backend: Tokenizer
    bos_token_id: int | None
    eos_token_id: int | None
    unk_token_id: int | None
    pad_token_id: int | None
    add_bos: bool
    add_eos: bool


def build(metadata: dict[str, Value]) -> GgufTokenizer:
    """The tokenizer that ``metadata`` describe. Raises ``LoadFailed`` for a kind that is not served."""
    model, pre = metadata.get("tokenizer.ggml.model"), metadata.get("tokenizer.ggml.pre")
    tokens = _strings(metadata, "tokens")
    if model == "gpt2":
        if pre not in PRE_TOKENIZERS:
            known = ", ".join(sorted(PRE_TOKENIZERS))
            raise LoadFailed(f"The GGUF file's pre-tokenizer '{pre}' is not supported; supported are {known}.")
        rules = PRE_TOKENIZERS[str(pre)]
        backend, adds_bos = _byte_level(rules, tokens, _types(metadata), _strings(metadata, "merges")), rules.adds_bos
    elif model == "llama":
        backend, adds_bos = _sentencepiece(metadata, tokens), True
    else:
        raise LoadFailed(f"The GGUF file's tokenizer model '{model}' is not supported; supported are gpt2 and llama.")
    _add_tokens(backend, tokens, _types(metadata))
    return GgufTokenizer(
        backend,
        _token_id(metadata, "bos_token_id"),
        _token_id(metadata, "eos_token_id"),
        _token_id(metadata, "unknown_token_id"),
        _token_id(metadata, "padding_token_id"),
        bool(metadata.get("tokenizer.ggml.add_bos_token", adds_bos)),
        bool(metadata.get("tokenizer.ggml.add_eos_token", False)),
    )


def _byte_level(rules: PreTokenizer, tokens: list[str], types: list[int], merges: list[str]) -> Tokenizer:
    added = {i for i, kind in enumerate(types) if kind in (_CONTROL, _USER_DEFINED)}
    vocab = {token if i in added else _respelled(token): i for i, token in enumerate(tokens)}
    backend = Tokenizer(models.BPE(vocab, _pairs(merges), ignore_merges=rules.ignore_merges))
    if rules.nfc:
        backend.normalizer = normalizers.NFC()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=rules.split is None)
    backend.pre_tokenizer = (
        byte_level
        if rules.split is None
        else pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(rules.split), "isolated"), byte_level])
    )
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(metadata: dict[str, Value], tokens: list[str]) -> Tokenizer:
    vocab = {token: i for i, token in enumerate(tokens)}
    merges = _pairs(_strings(metadata, "merges")) if "tokenizer.ggml.merges" in metadata else _merges(vocab, _scores(metadata))
    backend = Tokenizer(models.BPE(vocab, merges, fuse_unk=True, byte_fallback=True))
    prefixed = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", "first" if prefixed else "never", split=False)
    strip = [decoders.Strip(" ", left=1)] if prefixed else []
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip])
    return backend


def _merges(vocab: dict[str, int], scores: list[float]) -> list[tuple[str, str]]:
    """The merges that a SentencePiece vocabulary implies: every split of a token into two tokens, best score first."""
    found = [
        (-score, i, left, right)
        for i, (token, score) in enumerate(zip(vocab, scores, strict=False))
        for left, right in sorted(_splits(token, vocab), key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
    ]
    found.sort(key=lambda merge: (merge[0], -len(merge[2]), -len(merge[3])))
    return [(left, right) for _, _, left, right in found]


def _splits(token: str, vocab: dict[str, int]) -> Iterable[tuple[str, str]]:
    pairs = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
    return (pair for pair in pairs if pair[0] in vocab and pair[1] in vocab)


def _add_tokens(backend: Tokenizer, tokens: list[str], types: list[int]) -> None:
    """Control and user-defined tokens are found whole in a text, before anything else splits it."""
    kinds = list(zip(tokens, types, strict=False))
    backend.add_special_tokens([AddedToken(t, normalized=False, special=True) for t, kind in kinds if kind == _CONTROL])
    backend.add_tokens([AddedToken(t, normalized=False) for t, kind in kinds if kind == _USER_DEFINED])


def _respelled(token: str) -> str:
    return token if all(c in BYTE_OF for c in token) else "".join(CHARACTER_OF[byte] for byte in token.encode())


def _pairs(merges: list[str]) -> list[tuple[str, str]]:
    pairs = []
    for merge in merges:
        left, space, right = merge.partition(" ")
        if not space:
            raise LoadFailed("The GGUF file's tokenizer has a merge that is not two tokens.")
        pairs.append((left, right))
    return pairs


def _strings(metadata: dict[str, Value], key: str) -> list[str]:
    value = metadata.get(f"tokenizer.ggml.{key}")
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise LoadFailed(f"The GGUF file's tokenizer has no list of {key}.")
    return value  # type: ignore[return-value]


def _scores(metadata: dict[str, Value]) -> list[float]:
    value = metadata.get("tokenizer.ggml.scores")
    return [float(score) for score in value] if isinstance(value, list) else []


def _types(metadata: dict[str, Value]) -> list[int]:
    value = metadata.get("tokenizer.ggml.token_type")
    return [int(kind) for kind in value] if isinstance(value, list) else []


def _token_id(metadata: dict[str, Value], key: str) -> int | None:
    value = metadata.get(f"tokenizer.ggml.{key}")
    return value if isinstance(value, int) else None
