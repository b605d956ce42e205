"""String tensors: their elements out of raw or typed contents, with Triton's texts for what is wrong with them."""

import struct
from collections.abc import Sequence
from typing import NamedTuple

from octavo.errors import InvalidRequest
from octavo.protocol.rejection import RejectedRequest, prefixed

_LENGTH = struct.Struct("<I")


class StringTensor(NamedTuple):
    """An input that should hold ``expected`` strings. Triton's core counts them; that one is cut short its backends find."""

    model: str
    request_id: str
    name: str
    expected: int

    def unpack(self, raw: bytes) -> list[bytes]:
        """Length-prefixed strings; the prefix is 4 bytes, little-endian. Raises ``RejectedRequest`` or ``InvalidRequest``."""
        strings: list[bytes] = []
        at = 0
        while at < len(raw):
            if len(strings) == self.expected:
                raise self._too_many()
            left = len(raw) - at
            if left < _LENGTH.size:
                details = (
                    f"expecting {_LENGTH.size} bytes but only {left} bytes available. "
                    "Please make sure the string length indicator is in one buffer."
                )
                raise self._refusal("incomplete string length indicator for", details)
            (length,) = _LENGTH.unpack_from(raw, at)
            at += _LENGTH.size
            if length > len(raw) - at:
                raise InvalidRequest(
                    f"incomplete string data for inference input '{self.name}', expecting string of length {length} "
                    f"but only {len(raw) - at} bytes available"
                )
            strings.append(raw[at : at + length])
            at += length
        self.check(strings)
        return strings

    def check(self, strings: Sequence[bytes]) -> Sequence[bytes]:
        """``strings``, if they are as many as there should be. Raises ``RejectedRequest``."""
        if len(strings) < self.expected:
            raise self._refusal(f"expected {self.expected} string elements for", f"got {len(strings)}")
        if len(strings) > self.expected:
            raise self._too_many()
        return strings

    def _too_many(self) -> RejectedRequest:
        return self._refusal(f"unexpected number of string elements {self.expected + 1} for", f"expecting {self.expected}")

    def _refusal(self, what: str, details: str) -> RejectedRequest:
        return prefixed(self.request_id, f"{what} inference input '{self.name}' for model '{self.model}', {details}")
