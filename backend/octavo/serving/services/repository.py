"""Repository and statistics RPCs: the supervisor owns the answers, this asks it."""

from functools import partial

from octavo.errors import Draining, NotFound, Unsupported, shown
from octavo.repository import override_config
from octavo.serving.control import ListModels, LoadModel, ModelCounters, ReadStatistics, UnloadModel
from octavo.serving.link import Link
from octavo.serving.models import Models, parse_version
from octavo.serving.served import NANOSECONDS
from octavo.serving.services.core import SERVER_NOT_READY
from octavo.serving.statistics import Counters, ResponseCounters, Timing
from octavo.wire import pb

ONE_REPOSITORY = "'repository_name' specification is not supported"


class RepositoryService:
    """RepositoryIndex, RepositoryModelLoad, RepositoryModelUnload and ModelStatistics."""

    def __init__(self, models: Models, link: Link) -> None:
        """Ask over ``link``."""
        self._models, self._link = models, link

    async def RepositoryIndex(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """The repository's models and their states."""
        if request.repository_name:
            raise Unsupported(ONE_REPOSITORY)
        self._refuse_if_exiting()
        reply = await self._link.call(ListModels)
        response = pb.RepositoryIndexResponse()
        for entry in reply.index or []:
            if request.ready and entry.state != "READY":
                continue
            version = "" if entry.version is None else str(entry.version)
            response.models.add(name=entry.name, version=version, state=entry.state or "", reason=entry.reason)
        return response

    async def RepositoryModelLoad(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        """Load or reload a model; answers once it is ready everywhere."""
        name = _model_name(request)
        config = override_config(request.parameters)
        self._refuse_if_exiting()
        await self._link.call(partial(LoadModel, name=name, config=config))
        return pb.RepositoryModelLoadResponse()

    async def RepositoryModelUnload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        """Take no new requests for a model; its open ones finish after the answer. Unknown names are no error."""
        name = _model_name(request)
        self._refuse_if_exiting()
        await self._link.call(partial(UnloadModel, name=name))
        return pb.RepositoryModelUnloadResponse()

    async def ModelStatistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        """What was counted for one version, one model or all of them."""
        versions = self._wanted(request.name, parse_version(request.version))
        reply = await self._link.call(ReadStatistics)
        counted = {(entry.name, entry.version): entry for entry in reply.statistics or []}
        zero = Counters()
        return pb.ModelStatisticsResponse(
            model_stats=[_statistics(counted.get(key) or ModelCounters(*key, zero)) for key in versions]
        )

    def _wanted(self, name: str, version: int | None) -> list[tuple[str, int]]:
        """The (model, version) pairs asked for; raises Triton's errors if there is none."""
        names = [self._models.canonical(name)] if name else self._models.names()
        pairs = [(one, number) for one in names for number in self._models.versions(one)]
        if name and not pairs:
            raise NotFound(f"requested model '{shown(name)}' is not available")
        if name and version is not None:
            pairs = [pair for pair in pairs if pair[1] == version]
            if not pairs:
                raise NotFound(f"requested model version is not available for model '{name}'")
        return pairs

    def _refuse_if_exiting(self) -> None:
        if self._models.exiting:
            raise Draining(SERVER_NOT_READY)


def _model_name(request: pb.RepositoryModelLoadRequest | pb.RepositoryModelUnloadRequest) -> str:
    """The model meant. KServe's SDK has the name in field 1, which is Triton's ``repository_name``."""
    if request.model_name and request.repository_name:
        raise Unsupported(ONE_REPOSITORY)
    return request.model_name or request.repository_name


def _statistics(entry: ModelCounters) -> pb.ModelStatistics:
    counters = entry.counters
    inference = pb.InferStatistics(
        success=_timing(counters.success),
        fail=_timing(counters.fail),
        queue=_timing(counters.queue),
        compute_input=_timing(counters.compute_input),
        compute_infer=_timing(counters.compute_infer),
        compute_output=_timing(counters.compute_output),
        cache_hit=pb.StatisticDuration(),
        cache_miss=pb.StatisticDuration(),
    )
    batches = [
        pb.InferBatchStatistics(
            batch_size=1,
            compute_input=inference.compute_input,
            compute_infer=inference.compute_infer,
            compute_output=inference.compute_output,
        )
    ]
    return pb.ModelStatistics(
        name=entry.name,
        version=str(entry.version),
        last_inference=counters.last_inference_ms,
        inference_count=counters.success.count,
        execution_count=counters.success.count,
        inference_stats=inference,
        batch_stats=batches if counters.success.count else [],
        response_stats={str(place): _response(counted) for place, counted in enumerate(counters.responses)},
    )


def _response(counted: ResponseCounters) -> pb.InferResponseStatistics:
    c, answered = counted, counted.success + counted.fail
    return pb.InferResponseStatistics(
        compute_infer=_duration(answered, c.compute + c.failed_compute),
        compute_output=_duration(answered, c.text + c.failed_text),
        success=_duration(c.success, c.compute + c.text),
        fail=_duration(c.fail, c.failed_compute + c.failed_text),
        empty_response=pb.StatisticDuration(),
        cancel=_duration(c.cancel, c.cancelled),
    )


def _duration(count: int, seconds: float) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=count, ns=int(seconds * NANOSECONDS))


def _timing(timing: Timing) -> pb.StatisticDuration:
    return pb.StatisticDuration(count=timing.count, ns=timing.ns)
