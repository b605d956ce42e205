"""Metadata, configuration, statistics and the repository over HTTP: the messages of the gRPC services as JSON."""

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from octavo.errors import InvalidRequest, Unsupported
from octavo.protocol.json_body import as_json, decode, parameter
from octavo.serving.http.body import read_body
from octavo.serving.link import Link
from octavo.serving.models import Models
from octavo.serving.services.core import CoreService
from octavo.serving.services.repository import ONE_REPOSITORY, RepositoryService
from octavo.wire import pb


class _Index(msgspec.Struct):
    ready: bool = False


class _Control(msgspec.Struct):
    parameters: dict[str, msgspec.Raw] = {}


_INDEX = msgspec.json.Decoder(_Index)
_CONTROL = msgspec.json.Decoder(_Control)


class RepositoryEndpoints:
    """What is known of models, and which of them are loaded."""

    def __init__(self, models: Models, link: Link, limit: int) -> None:
        """Ask over ``link``; a body has at most ``limit`` bytes."""
        self._core, self._repository, self._limit = CoreService(models, link), RepositoryService(models, link), limit

    async def metadata(self, request: Request) -> Response:
        """Tensors and versions of a model."""
        return _json(as_json(await self._core.ModelMetadata(pb.ModelMetadataRequest(**_named(request)))))

    async def config(self, request: Request) -> Response:
        """The completed configuration of a model."""
        return _json(as_json((await self._core.ModelConfig(pb.ModelConfigRequest(**_named(request)))).config))

    async def statistics(self, request: Request) -> Response:
        """What was counted for one version, one model or all of them."""
        return _json(as_json(await self._repository.ModelStatistics(pb.ModelStatisticsRequest(**_named(request)))))

    async def index(self, request: Request) -> Response:
        """The repository's models and their states, each without what is empty."""
        body = await read_body(request, self._limit)
        wanted = decode(_INDEX, body) if body else _Index()
        index = await self._repository.RepositoryIndex(pb.RepositoryIndexRequest(ready=wanted.ready))
        return _json([{name: value for name, value in as_json(model).items() if value} for model in index.models])

    async def load(self, request: Request) -> Response:
        """Load or reload a model; answers once it is ready everywhere."""
        message = pb.RepositoryModelLoadRequest(model_name=request.path_params["model"])
        for name, value in (await self._parameters(request)).items():
            message.parameters[name].CopyFrom(_control_parameter(name, value))
        await self._repository.RepositoryModelLoad(message)
        return Response(media_type="application/json")

    async def unload(self, request: Request) -> Response:
        """Take no new requests for a model."""
        await self._parameters(request)
        await self._repository.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name=request.path_params["model"]))
        return Response(media_type="application/json")

    async def other_repository(self, request: Request) -> Response:
        """A repository that is named: there is only one, without a name."""
        raise Unsupported(ONE_REPOSITORY)

    async def _parameters(self, request: Request) -> dict[str, msgspec.Raw]:
        body = await read_body(request, self._limit)
        return decode(_CONTROL, body).parameters if body else {}


def _named(request: Request) -> dict[str, str]:
    return {"name": request.path_params.get("model", ""), "version": request.path_params.get("version", "")}


def _control_parameter(name: str, value: msgspec.Raw) -> pb.ModelRepositoryParameter:
    scalar = parameter(name, value)
    kind = scalar.WhichOneof("parameter_choice")
    if kind not in {"string_param", "int64_param", "bool_param"}:
        raise InvalidRequest(f"invalid value type for load parameter '{name}', expected string_param.")
    return pb.ModelRepositoryParameter(**{kind: getattr(scalar, kind)})


def _json(value: Any) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
