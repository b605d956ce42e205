"""Which group every method and every route belongs to: the one table of what there is to be allowed. Knows no credentials.

The groups are those of tritonserver's ``--grpc-restricted-protocol``, one for the metrics port, and one for the
page for people, which itself holds no data. What is not in this table is in no group, and once credentials are configured nothing
opens it.
"""

import re
from collections.abc import Mapping
from enum import StrEnum


class Group(StrEnum):
    """What is allowed or refused as one."""

    HEALTH = "health"
    METADATA = "metadata"
    INFERENCE = "inference"
    SHARED_MEMORY = "shared-memory"
    MODEL_CONFIG = "model-config"
    MODEL_REPOSITORY = "model-repository"
    STATISTICS = "statistics"
    TRACE = "trace"
    LOGGING = "logging"
    METRICS = "metrics"
    PAGE = "page"
    DEBUG = "debug"


_TRITON: Mapping[Group, tuple[str, ...]] = {
    Group.HEALTH: ("ServerLive", "ServerReady", "ModelReady"),
    Group.METADATA: ("ServerMetadata", "ModelMetadata"),
    Group.INFERENCE: ("ModelInfer", "ModelStreamInfer"),
    Group.SHARED_MEMORY: (
        "SystemSharedMemoryStatus",
        "SystemSharedMemoryRegister",
        "SystemSharedMemoryUnregister",
        "CudaSharedMemoryStatus",
        "CudaSharedMemoryRegister",
        "CudaSharedMemoryUnregister",
    ),
    Group.MODEL_CONFIG: ("ModelConfig",),
    Group.MODEL_REPOSITORY: ("RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload"),
    Group.STATISTICS: ("ModelStatistics",),
    Group.TRACE: ("TraceSetting",),
    Group.LOGGING: ("LogSettings",),
}
_METHODS: Mapping[str, Group] = {
    **{f"/inference.GRPCInferenceService/{rpc}": group for group, rpcs in _TRITON.items() for rpc in rpcs},
    "/grpc.health.v1.Health/Check": Group.HEALTH,
    "/grpc.health.v1.Health/Watch": Group.HEALTH,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Group.METADATA,
}
# Of a model and of a version of it alike.
_OF_MODEL: Mapping[str, Group] = {
    "": Group.METADATA,
    "/ready": Group.HEALTH,
    "/infer": Group.INFERENCE,
    "/generate": Group.INFERENCE,
    "/generate_stream": Group.INFERENCE,
    "/config": Group.MODEL_CONFIG,
    "/stats": Group.STATISTICS,
    "/trace/setting": Group.TRACE,
}
# Of the OpenAI API, under both of its prefixes; tokens are to be had without any, too.
_OPENAI: Mapping[str, Group] = {
    "/models": Group.METADATA,
    "/models/{}": Group.METADATA,
    "/completions": Group.INFERENCE,
    "/chat/completions": Group.INFERENCE,
    "/responses": Group.INFERENCE,
    "/responses/input_tokens": Group.INFERENCE,
    "/tokenize": Group.INFERENCE,
    "/detokenize": Group.INFERENCE,
}
_ROUTES: Mapping[str, Group] = {
    "/metrics": Group.METRICS,
    "/debug": Group.DEBUG,
    "/debug/stacks": Group.DEBUG,
    "/": Group.PAGE,
    "/page/live": Group.STATISTICS,
    "/v2": Group.METADATA,
    "/v2/health/live": Group.HEALTH,
    "/v2/health/ready": Group.HEALTH,
    "/v2/models/stats": Group.STATISTICS,
    **{f"/v2/models/{{}}{path}": group for path, group in _OF_MODEL.items()},
    **{f"/v2/models/{{}}/versions/{{}}{path}": group for path, group in _OF_MODEL.items()},
    "/v2/repository/index": Group.MODEL_REPOSITORY,
    "/v2/repository/models/{}/load": Group.MODEL_REPOSITORY,
    "/v2/repository/models/{}/unload": Group.MODEL_REPOSITORY,
    "/v2/repository/{}/index": Group.MODEL_REPOSITORY,
    "/v2/repository/{}/models/{}/{}": Group.MODEL_REPOSITORY,
    "/v2/systemsharedmemory{}": Group.SHARED_MEMORY,
    "/v2/cudasharedmemory{}": Group.SHARED_MEMORY,
    "/v2/trace/setting": Group.TRACE,
    "/v2/logging": Group.LOGGING,
    "/health": Group.HEALTH,
    "/version": Group.METADATA,
    "/tokenize": Group.INFERENCE,
    "/detokenize": Group.INFERENCE,
    **{f"{base}{path}": group for base in ("/v1", "/openai/v1") for path, group in _OPENAI.items()},
}
_PARAMETER = re.compile(r"\{[^}]*\}")


def group_of_method(method: str) -> Group | None:
    """The group of a gRPC method, named as on the wire: ``/package.Service/Method``."""
    return _METHODS.get(method)


def group_of_route(template: str) -> Group | None:
    """The group of an HTTP route, named by its template; how the template calls its parameters does not matter."""
    return _ROUTES.get(_PARAMETER.sub("{}", template))
