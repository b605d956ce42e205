"""``RejectedRequest``: a request that real Triton turns away before its model sees it, and how its texts are spelled.

On a stream Triton answers these with the request's id alone; later mistakes also name the model.
"""

from octavo.errors import InvalidRequest, shown

MAX_ID_BYTES = 1 << 16


class RejectedRequest(InvalidRequest):
    """The envelope is wrong (tensors, parameters), not what it asks of the model."""


def prefixed(request_id: str, text: str) -> RejectedRequest:
    """A rejection with the prefix that Triton's core puts before most of its texts."""
    return RejectedRequest(f"[request id: {shown(request_id) or '<id_unknown>'}] {text}")


def check_count(count: int, most: int, what: str) -> None:
    """Refuse more of something than any request here needs, before anything is done for each."""
    if count > most:
        raise RejectedRequest(f"The request must have at most {most} {what}, got {count}.")


def check_id(request_id: str) -> None:
    """Refuse an id that would be a burden on every message of the answer."""
    if (size := len(request_id.encode())) > MAX_ID_BYTES:
        raise RejectedRequest(f"The id of a request must have at most {MAX_ID_BYTES} bytes, got {size}.")
