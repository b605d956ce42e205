"""``Limits``: what a client of one server may do. Knows no flag."""

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes are bytes, times seconds.

    ``max_message`` counts after decompression, ``max_metadata`` as HTTP/2 counts a header list. A client is pinged after
    ``keepalive_time`` of silence, at most ``pings_without_data`` times (0: always) without an answer of ours between, and has
    ``keepalive_timeout`` to answer. Its own pings may come every ``ping_interval``, or whenever something was sent to it;
    of earlier ones ``ping_strikes`` are borne (0: all). A connection of ``max_age`` is to be made anew, and its calls then
    have ``max_age_grace``; None is for ever. ``compression`` is zlib's level, 0 for none.
    """

    max_message: int
    max_metadata: int
    max_streams: int
    keepalive_time: float
    keepalive_timeout: float
    keepalive_without_calls: bool
    pings_without_data: int
    ping_interval: float
    ping_strikes: int
    max_age: float | None
    max_age_grace: float | None
    compression: int

    @property
    def max_held(self) -> int:
        """Bytes of messages that are not handed over yet, of all calls of one connection: what four of the largest have."""
        return 4 * self.max_message
