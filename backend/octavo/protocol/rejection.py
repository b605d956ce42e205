"""``RejectedRequest``: a request that real Triton turns away before its model sees it, and how its texts are spelled.

On a stream Triton answers these with the request's id alone; later mistakes also name the model.
"""

from octavo.errors import InvalidRequest, shown


class RejectedRequest(InvalidRequest):
    """The envelope is wrong (tensors, parameters), not what it asks of the model."""


def prefixed(request_id: str, text: str) -> RejectedRequest:
    """A rejection with the prefix that Triton's core puts before most of its texts."""
    return RejectedRequest(f"[request id: {shown(request_id) or '<id_unknown>'}] {text}")
