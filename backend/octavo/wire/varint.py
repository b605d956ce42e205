"""``varint``: a length as protobuf writes it, for messages that are written without being built."""

_ONE_BYTE = tuple(bytes([value]) for value in range(128))


def varint(value: int) -> bytes:
    """``value``, not negative, in base 128, least significant digit first, with a bit that says whether more follow."""
    if value < 128:
        return _ONE_BYTE[value]
    digits = bytearray()
    while value >= 128:
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)
