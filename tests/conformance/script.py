"""The client script: every case in order against one server."""

from conformance.answers import Data
from conformance.cases import Case, core, infer, repository, settings, streaming
from conformance.client import Client

GRPC: dict[str, Case] = {
    **core.CASES,
    **infer.CASES,
    **streaming.CASES,
    **settings.CASES,
    **repository.CASES,
    **streaming.LAST_CASES,
}


def run(grpc: str) -> dict[str, Data]:
    """The answers of the server whose gRPC service is at ``grpc``, by case."""
    with Client(grpc) as client:
        return {name: case(client) for name, case in GRPC.items()}
