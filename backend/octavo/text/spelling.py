"""How a vocabulary spells bytes: from a token's string to the bytes it stands for. Knows no ids and no text."""

import json
import re
from enum import Enum
from typing import Any

import tokenizers

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class Spelling(Enum):
    """The two ways that decoder models write bytes as vocabulary strings."""

    BYTE_LEVEL = "byte-level"
    SENTENCEPIECE = "sentencepiece"

    def token_bytes(self, token: str) -> bytes:
        """The bytes that ``token`` adds to a text; pieces of one character may be spread over several tokens."""
        if self is Spelling.SENTENCEPIECE:
            byte = _BYTE_TOKEN.fullmatch(token)
            return bytes([int(byte[1], 16)]) if byte else token.replace("▁", " ").encode()
        try:
            return bytes([BYTE_OF[character] for character in token])
        except KeyError:
            return token.encode()

    @staticmethod
    def of(backend: tokenizers.Tokenizer) -> "Spelling | None":
        """The spelling that ``backend``'s decoder reads, None if it is another one."""
        steps = _steps(json.loads(backend.decoder.__getstate__())) if backend.decoder else []
        if steps == ["ByteLevel"]:
            return Spelling.BYTE_LEVEL
        if steps and set(steps) <= {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}:
            return Spelling.SENTENCEPIECE
        return None


def _steps(decoder: dict[str, Any]) -> list[str]:
    if decoder["type"] == "Sequence":
        return [step for part in decoder["decoders"] for step in _steps(part)]
    return [decoder["type"]]


def _byte_alphabet() -> dict[int, str]:
    """GPT-2's table: printable bytes stand for themselves, the others for the characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


CHARACTER_OF = _byte_alphabet()
BYTE_OF = {character: byte for byte, character in CHARACTER_OF.items()}
