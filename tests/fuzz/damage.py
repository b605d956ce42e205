"""Damage: what the fuzzers do to bytes and values that were right. Knows no protocol."""

import random
from typing import Any

TOKENS = (
    b"[", b"{", b"]", b"}", b'"', b",", b":", b"\\u", b"\\ud800", b"\x00", b"-1", b"1e999", b"null", b"true", b"\xff", b"9" * 40,
    b"NaN",
)  # fmt: skip
TEXTS = (
    "", "a", "0", "-1", "1e400", "NaN", "true", "null", "[]", "{}", '{"a":' * 50, "[" * 600, "\x00", "\u202e", "é" * 40, "🦉",
    "x" * 9000, "text_output", "stop", "triton_final_response", "/etc/passwd", "../..", "%s%n", "{{7*7}}", "18446744073709551616",
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 3, 127, 128, 129, 255, 1024, 2**15, 2**31 - 1, -(2**31), 2**31, 2**32, 2**53, 2**63 - 1, -(2**63))
REALS = (0.0, -0.0, 0.5, 1.0, -1.0, 1e-300, 1e300, float("inf"), float("-inf"), float("nan"), 2.0**64)
SIZES = (1, 1, 1, 2, 4, 8, 64)


def damaged(data: bytes, chance: random.Random) -> bytes:
    """``data`` with one to four bytes or pieces changed, added, doubled, moved or taken away."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(changed) + 1)
        end = min(len(changed), at + chance.choice(SIZES))
        match chance.randrange(7):
            case 0:
                changed[at:end] = chance.randbytes(end - at)
            case 1:
                del changed[at:end]
            case 2:
                changed[at:at] = changed[at:end] * chance.randint(1, 9)
            case 3:
                changed[at:at] = chance.choice(TOKENS)
            case 4:
                del changed[at:]
            case 5 if at < len(changed):
                changed[at] ^= 1 << chance.randrange(8)
            case _:
                other = chance.randrange(len(changed) + 1)
                changed[at:end] = changed[other : other + end - at]
    return bytes(changed)


def text(chance: random.Random) -> str:
    """Some text."""
    return chance.choice(TEXTS)


def number(chance: random.Random) -> int:
    """A whole number of 64 bits with its sign, mostly at an edge."""
    return chance.choice(NUMBERS) if chance.random() < 0.8 else chance.randint(-(2**63), 2**63 - 1)


def real(chance: random.Random) -> float:
    """Any floating-point number, also those that are none."""
    return chance.choice(REALS) if chance.random() < 0.8 else chance.uniform(-3, 3)


def value(chance: random.Random, depth: int = 3) -> Any:
    """Anything that JSON can hold, or nearly: an infinity too."""
    kind = chance.randrange(9 if depth else 6)
    if kind < 6:
        return chance.choice((None, True, False, number(chance), real(chance), text(chance)))
    if kind == 6:
        return {text(chance): value(chance, depth - 1) for _ in range(chance.randrange(3))}
    return [value(chance, depth - 1) for _ in range(chance.randrange(4))]


def alike(given: Any, chance: random.Random) -> Any:
    """Another value of the type that ``given`` has, so that more of the way is gone than the first check."""
    if isinstance(given, bool):
        return not given
    if isinstance(given, int):
        return chance.choice((0, 1, 2, 3, 20, 64, given + 1, number(chance)))
    if isinstance(given, float):
        return chance.choice((0.0, 0.1, 1.0, 2.0, real(chance)))
    if isinstance(given, str):
        return chance.choice((text(chance), given * 2, given[:-1]))
    if isinstance(given, list):
        return chance.choice((given * 2, given[:-1], given[::-1]))
    return given
