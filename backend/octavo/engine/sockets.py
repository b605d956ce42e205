"""What is asked of a ZeroMQ socket around every step, in the cheapest way. Knows no message."""

from typing import cast

import zmq

# As plain numbers: pyzmq's flags are enumerations, and to join two of those takes as long as a send.
NOBLOCK, MORE = int(zmq.NOBLOCK), int(zmq.SNDMORE)
_READABLE = int(zmq.POLLIN)


def readable(socket: "zmq.Socket[bytes]") -> bool:
    """Whether a message is there. To find that none is by reading costs an exception."""
    return bool(cast(int, socket.get(zmq.EVENTS)) & _READABLE)
