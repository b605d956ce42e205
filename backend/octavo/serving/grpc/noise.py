"""``quiet_grpc``: keeps out of the log what any client can make gRPC's own code write there, trace and all. Knows no call."""

import logging

_UNSENT = "Failed sending error status from server"


def quiet_grpc() -> None:
    """Log nothing of calls whose method or metadata are no text, nor of clients that have gone before their refusal."""
    logging.getLogger("grpc._cython.cygrpc").addFilter(_worth_a_line)


def _worth_a_line(record: logging.LogRecord) -> bool:
    undecodable = record.exc_info is not None and isinstance(record.exc_info[1], UnicodeDecodeError)
    return not undecodable and not str(record.msg).startswith(_UNSENT)
