"""Liveness, readiness, metadata and configuration, and what is outside the service."""

from functools import partial

from tritonclient.grpc import service_pb2 as pb

from conformance.cases import Case
from conformance.client import SERVICE, Client

BAD_VERSIONS = ("99", "abc", "-1", "1x", " 1", "99999999999999999999")
HEALTH = "/grpc.health.v1.Health/Check"
_RPCS = {"ModelReady": pb.ModelReadyRequest, "ModelMetadata": pb.ModelMetadataRequest, "ModelConfig": pb.ModelConfigRequest}


def _of_model(rpc: str, name: str, version: str) -> tuple[str, Case]:
    request = _RPCS[rpc](name=name, version=version)
    return f"{rpc} '{name}' '{version}'", partial(Client.call, rpc=rpc, request=request)


def _raw(path: str, data: bytes) -> Case:
    return partial(Client.unary, path=path, data=data)


CASES: dict[str, Case] = {
    "ServerLive": partial(Client.call, rpc="ServerLive", request=pb.ServerLiveRequest()),
    "ServerReady": partial(Client.call, rpc="ServerReady", request=pb.ServerReadyRequest()),
    "ServerMetadata": partial(Client.call, rpc="ServerMetadata", request=pb.ServerMetadataRequest()),
    **dict(_of_model("ModelReady", name, "") for name in ("llm", "nope", "", "failing", "spare")),
    **dict(_of_model("ModelReady", "add_sub", version) for version in ("1", "2", "3", "0", *BAD_VERSIONS)),
    **dict(_of_model("ModelMetadata", name, "") for name in ("llm", "nope", "", "failing", "spare", "../llm")),
    **dict(_of_model("ModelMetadata", "llm", version) for version in ("1", "0", *BAD_VERSIONS)),
    **dict(_of_model("ModelMetadata", "nope", version) for version in ("1", "abc")),
    **dict(_of_model("ModelConfig", name, "") for name in ("llm", "nope", "")),
    **dict(_of_model("ModelConfig", "llm", version) for version in ("1", *BAD_VERSIONS)),
    "health of the server": _raw(HEALTH, b""),
    "health of a model": _raw(HEALTH, b"\x0a\x03llm"),
    "health of an unknown service": _raw(HEALTH, b"\x0a\x04nope"),
    "an unknown method": _raw(SERVICE + "Nope", b""),
    "an unknown service": _raw("/nope.Nope/Nope", b""),
    "bytes that are no ServerMetadataRequest": _raw(SERVICE + "ServerMetadata", b"\xff\xff\xff"),
    "bytes that are no ModelInferRequest": _raw(SERVICE + "ModelInfer", b"\xff\xff\xff"),
    "bytes that are no ModelMetadataRequest": _raw(SERVICE + "ModelMetadata", b"\x0a\x05ll"),
}
