"""What every RPC's handler does to bytes, without a server."""

import pytest

from octavo.errors import Internal
from octavo.serving.grpc.handlers import parse
from octavo.wire import pb


def test_bytes_that_are_no_message_are_not_kept_by_their_error() -> None:
    """An exception collects a trace, with all its frames' variables, each time that it is raised: so each has its own."""
    errors = []
    for _ in range(2):
        with pytest.raises(Internal, match=r"^Unable to parse request$") as caught:
            parse(pb.ModelInferRequest, b"\xff" * 100)
        errors.append(caught.value)
    assert errors[0] is not errors[1]
