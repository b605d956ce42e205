"""What supervisor and front ends say to each other over one Unix socket, as msgspec structs. Knows no transport of clients."""

from enum import StrEnum

import msgspec

from octavo.config import ReasoningParser, RequestLimits, ToolCallParser
from octavo.engine.messages import EngineInfo, Picture
from octavo.errors import ErrorFrame
from octavo.serving.http2.limits import Limits
from octavo.serving.security import Security
from octavo.serving.settings import Settings
from octavo.serving.statistics import Counters


class ModelState(StrEnum):
    """The state of one model version, under the names of ``RepositoryIndex``."""

    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


class EngineBinding(msgspec.Struct, frozen=True):
    """Where a running engine listens. ``generation`` is unique to the process, ``load`` to the load that started it.

    ``created``: when the model was loaded, in seconds since the epoch. The parsers are as in ``EngineConfig``.
    """

    generation: int
    load: int
    address: str
    tokenizer: str
    info: EngineInfo
    created: int
    tool_call_parser: ToolCallParser | None = None
    reasoning_parser: ReasoningParser | None = None


class VersionEntry(msgspec.Struct, frozen=True):
    """One version of a model. ``failure`` says why a READY version has no engine at the moment: it died and comes back."""

    version: int
    state: ModelState
    reason: str = ""
    config: bytes = b""
    engine: EngineBinding | None = None
    failure: ErrorFrame | None = None
    aliases: list[str] = []


class ModelEntry(msgspec.Struct, frozen=True):
    """A model that is loaded or was; a model that never was has no entry."""

    name: str
    versions: list[VersionEntry]


class IndexEntry(msgspec.Struct, frozen=True):
    """One line of ``RepositoryIndex``; a model that was never loaded has only a name."""

    name: str
    version: int | None = None
    state: ModelState | None = None
    reason: str = ""


class ModelCounters(msgspec.Struct, frozen=True):
    """What was counted for one version of one model."""

    name: str
    version: int
    counters: Counters


class Load(msgspec.Struct, frozen=True):
    """How busy all engines are: the fullest cache's share in use, and over all of them the tokens it can hold and the requests."""

    kv_cache_usage: float = 0.0
    kv_cache_tokens: int = 0
    running: int = 0
    waiting: int = 0


class EnginePicture(msgspec.Struct, frozen=True):
    """A model version and the last picture of its engine, None while there is none. ``engine`` is unique to the process."""

    name: str
    version: int
    engine: int | None = None
    device: str = ""
    dtype: str = ""
    page_size: int = 0
    picture: Picture | None = None


class Hello(msgspec.Struct, frozen=True, tag=True):
    """Front end: I run and want the table."""


class Opened(msgspec.Struct, frozen=True, tag=True):
    """Front end: I listen on the ports."""


class Applied(msgspec.Struct, frozen=True, tag=True):
    """Front end: everything up to this revision of the table holds here."""

    revision: int


class Prepared(msgspec.Struct, frozen=True, tag=True):
    """Front end: the tokenizer of this load is here, or cannot be had."""

    load: int
    error: ErrorFrame | None = None


class Released(msgspec.Struct, frozen=True, tag=True):
    """Front end: the engine of this generation has no request of mine any more and gets no other."""

    generation: int


class CounterDeltas(msgspec.Struct, frozen=True, tag=True):
    """Front end: what I counted since the last such message; the answer to ``ReadCounters``."""

    query: int
    models: list[ModelCounters]


class OpenRequest(msgspec.Struct, frozen=True):
    """A request that is not over: whose id is the client's, and how much there is of it, never what.

    ``age_s``: since its bytes were here. ``tokens``: of its answer so far. ``queue_s``: how long it waited for its first step.
    """

    id: str
    model: str
    version: int
    age_s: float
    prompt_tokens: int
    tokens: int
    queue_s: float | None


class DebugReport(msgspec.Struct, frozen=True, tag=True):
    """Front end: what is open here, and what the tasks of the event loop wait for; the answer to ``ReadDebug``."""

    query: int
    requests: list[OpenRequest] = []
    tasks: list[str] = []


class StopRequests(msgspec.Struct, frozen=True, tag=True):
    """Front end, and then the supervisor to all others: end the open requests of this model and owner that have this id."""

    model: str
    id: str
    owner: bytes


class LoadModel(msgspec.Struct, frozen=True, tag=True):
    """Front end: a client asks for a load. ``config`` is a ModelConfig in JSON in place of the repository's."""

    call: int
    name: str
    config: str | None = None


class UnloadModel(msgspec.Struct, frozen=True, tag=True):
    """Front end: a client asks for an unload."""

    call: int
    name: str


class ListModels(msgspec.Struct, frozen=True, tag=True):
    """Front end: a client asks for the repository's index."""

    call: int


class ReadStatistics(msgspec.Struct, frozen=True, tag=True):
    """Front end: a client asks for the statistics of all models."""

    call: int


class ReadLoad(msgspec.Struct, frozen=True, tag=True):
    """Front end: a client asks how busy the server is."""

    call: int


class ReadPictures(msgspec.Struct, frozen=True, tag=True):
    """Front end: a client watches the engines."""

    call: int


class ChangeLogs(msgspec.Struct, frozen=True, tag=True):
    """Front end: a client changes how the server logs; the fields of ``LogSettings`` that it named."""

    call: int
    changes: dict[str, bool | int | str]


class ChangeTraces(msgspec.Struct, frozen=True, tag=True):
    """Front end: a client changes what of ``model`` is traced; the fields of ``TraceSettings`` that it named."""

    call: int
    model: str
    changes: dict[str, bool | int | None]


class CountTrace(msgspec.Struct, frozen=True, tag=True):
    """Front end: a request for ``model`` is traced, one of the number that may be."""

    call: int
    model: str


FrontEndMessage = (
    Hello
    | Opened
    | Prepared
    | Applied
    | Released
    | CounterDeltas
    | DebugReport
    | StopRequests
    | LoadModel
    | UnloadModel
    | ListModels
    | ReadStatistics
    | ReadLoad
    | ReadPictures
    | ChangeLogs
    | ChangeTraces
    | CountTrace
)
Call = LoadModel | UnloadModel | ListModels | ReadStatistics | ReadLoad | ReadPictures | ChangeLogs | ChangeTraces | CountTrace


class Table(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: the models and settings as they are now. An engine that is no longer named gets no new requests.

    ``loads`` are all that serve or are under way; what was prepared for others can be forgotten.
    """

    revision: int
    models: list[ModelEntry]
    loads: list[int]
    ready: bool
    exiting: bool
    settings: Settings


class Prepare(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: a load is under way; have its tokenizer ready."""

    load: int
    tokenizer: str


class EngineGone(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: this engine has died; its requests end with ``error``."""

    generation: int
    error: ErrorFrame


class Open(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: listen on the ports."""


class ReadCounters(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: send what you counted."""

    query: int


class ReadDebug(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: say what is open."""

    query: int


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: take no new requests, let the open ones go on for ``seconds``, then exit."""

    seconds: float


class CallReply(msgspec.Struct, frozen=True, tag=True):
    """Supervisor: the answer to a ``Call``, and what it asked for."""

    call: int
    error: ErrorFrame | None = None
    index: list[IndexEntry] | None = None
    statistics: list[ModelCounters] | None = None
    load: Load | None = None
    pictures: list[EnginePicture] | None = None


SupervisorMessage = Table | Prepare | EngineGone | Open | ReadCounters | ReadDebug | Drain | StopRequests | CallReply


class FrontEndSetup(msgspec.Struct, frozen=True):
    """What a front end reads from its standard input before anything else. ``parent``: the supervisor's process id.

    ``patience``: for how many seconds that may say nothing before this front end no longer calls the server alive.
    """

    number: int
    parent: int
    control: str
    patience: float
    grpc_address: str
    grpc_port: int
    http_address: str
    http_port: int
    grpc_limits: Limits
    max_stream_requests: int
    http_max_input_size: int
    http_cors_origins: list[str]
    http_max_header_size: int
    http_page: bool
    max_response_buffer_size: int
    limits: RequestLimits
    security: Security
    settings: Settings
