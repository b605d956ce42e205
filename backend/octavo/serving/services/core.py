"""Liveness, readiness, metadata and configuration RPCs: all answered from what this front end knows."""

from octavo.errors import Draining
from octavo.protocol.triton_reply import model_metadata
from octavo.serving.identity import EXTENSIONS, NAME, VERSION
from octavo.serving.link import Link
from octavo.serving.models import Models, parse_version
from octavo.wire import pb

SERVER_EXITING = "Server exiting"
SERVER_NOT_READY = "Server not ready"


class CoreService:
    """Server* and Model{Ready,Metadata,Config}."""

    def __init__(self, models: Models, link: Link) -> None:
        """Answer from ``models``; ``link`` tells whether the supervisor lives."""
        self._models, self._link = models, link

    async def ServerLive(self, _: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        """Whether this process and the supervisor answer; an exiting server says so instead."""
        self._refuse_if_exiting(SERVER_EXITING)
        return pb.ServerLiveResponse(live=not self._link.silent)

    async def ServerReady(self, _: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        """Whether every model is ready."""
        self._refuse_if_exiting(SERVER_EXITING)
        return pb.ServerReadyResponse(ready=self._models.ready)

    async def ServerMetadata(self, _: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        """Who this is and which extensions work."""
        return pb.ServerMetadataResponse(name=NAME, version=VERSION, extensions=EXTENSIONS)

    async def ModelReady(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """Whether one version is ready; an unknown one is not."""
        parse_version(request.version)
        self._refuse_if_exiting(SERVER_NOT_READY)
        return pb.ModelReadyResponse(ready=self._models.is_ready(request.name, request.version))

    async def ModelMetadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        """Tensors and versions of a model, with the datatype names of requests."""
        route = self._models.find(request.name, request.version)
        versions = [route.version] if request.version else self._models.versions(request.name)
        return model_metadata(route.config, versions)

    async def ModelConfig(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        """The completed configuration of a model."""
        return pb.ModelConfigResponse(config=self._models.find(request.name, request.version).config)

    def _refuse_if_exiting(self, text: str) -> None:
        if self._models.exiting:
            raise Draining(text)
