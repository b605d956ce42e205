"""SETTINGS as a client sends them. Knows no connection."""

from octavo.serving.http2 import frames
from octavo.serving.http2.faults import Code, ConnectionFault


def read_settings(payload: bytes) -> dict[int, int]:
    """The last value of each setting. Raises ``ConnectionFault``."""
    if len(payload) % frames.SETTING.size:
        raise ConnectionFault(Code.FRAME_SIZE_ERROR, "SETTINGS have 6 bytes each")
    values = dict(frames.SETTING.iter_unpack(payload))
    if values.get(frames.ENABLE_PUSH, 0) > 1:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "SETTINGS_ENABLE_PUSH must be 0 or 1")
    if values.get(frames.INITIAL_WINDOW_SIZE, 0) > frames.MAX_WINDOW:
        raise ConnectionFault(Code.FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE must be at most 2147483647")
    size = values.get(frames.MAX_FRAME_SIZE, frames.SMALLEST_MAX_FRAME)
    if not frames.SMALLEST_MAX_FRAME <= size <= frames.LARGEST_MAX_FRAME:
        raise ConnectionFault(Code.PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE must be between 16384 and 16777215")
    return values
