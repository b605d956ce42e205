"""The client script: every case in order against one server."""

from conformance.answers import Data
from conformance.cases import Case, core, infer, repository, rest, settings, streaming
from conformance.client import Client

CASES: dict[str, Case] = {
    **core.CASES,
    **infer.CASES,
    **streaming.CASES,
    **settings.CASES,
    **repository.CASES,
    **rest.CASES,
    **streaming.LAST_CASES,
}


def run(grpc: str, http: str) -> dict[str, Data]:
    """The answers of the server whose services are at these addresses, by case."""
    with Client(grpc, http) as client:
        return {name: case(client) for name, case in CASES.items()}
