"""The flags of ``octavo serve``, one annotated type each, in the groups of ``--help``. Tritonserver's names."""

from pathlib import Path
from typing import Annotated, Any

import typer

from octavo.sampling import MAX_SAMPLES, MAX_STOP_CHARACTERS, MAX_STOPS
from octavo.serving.options import CompressionLevel, LogFormat, ModelControlMode


def _in(panel: str) -> Any:
    """What makes an option of ``panel``, with typer's own arguments."""
    return lambda *names, **details: typer.Option(*names, rich_help_panel=panel, **details)


_models, _ports, _grpc = _in("Models"), _in("Ports and processes"), _in("gRPC connections")
_tls, _access, _limits, _logs = _in("TLS"), _in("Who may do what"), _in("Limits"), _in("Logs and traces")
_PORT = {"min": 0, "max": 65535}
_RESTRICTION = "A header that the calls of these groups must carry: <group>,<group>:<key>=<value>. Repeatable."

Repositories = Annotated[
    list[Path],
    _models("--model-repository", "--model-store", help="A folder of models, or one bare snapshot or .gguf file. Repeatable."),
]
ModelName = Annotated[str | None, _models(help="The name of the model when the repository is one bare snapshot.")]
ControlMode = Annotated[ModelControlMode, _models(help="none: load all at start; poll: again when files change; explicit: by RPC.")]
LoadModel = Annotated[list[str] | None, _models(help="A model to load at start in explicit mode, * for all. Repeatable.")]
PollSecs = Annotated[float, _models(min=0.1, help="Seconds between two looks at the repository in poll mode.")]
LoadThreads = Annotated[int, _models(min=1, help="Models that load at once.")]
StrictReadiness = Annotated[bool, _models(help="Ready only when every model is.")]
ExitOnError = Annotated[bool, _models(help="Exit when a model fails to load at start.")]
EngineTimeout = Annotated[float, _models(min=1, help="Seconds of silence after which an engine or a front end is started again.")]
ExitTimeout = Annotated[float, _models(min=0, help="Seconds that open requests may go on after SIGTERM.")]

GrpcAddress = Annotated[str, _ports(help="Address of the gRPC service.")]
GrpcPort = Annotated[int, _ports(**_PORT, help="Port of the gRPC service; 0 takes a free one.")]
HttpAddress = Annotated[str, _ports(help="Address of the HTTP service.")]
HttpPort = Annotated[int, _ports(**_PORT, help="Port of the HTTP service; 0 takes a free one.")]
HttpPage = Annotated[bool, _ports(help="Serve a page for people at / of the HTTP service.")]
MetricsAddress = Annotated[str, _ports(help="Address of /metrics.")]
MetricsPort = Annotated[int, _ports(**_PORT, help="Port of /metrics; 0 takes a free one.")]
FrontEnds = Annotated[int, _ports(min=0, help="Front-end processes; 0 is one for every eight cores.")]

DebugPage = Annotated[bool, _access(help="Serve /debug on the port of /metrics, for tokens of the group debug.")]
GrpcUseSsl = Annotated[bool, _tls(help="Serve gRPC over TLS.")]
GrpcUseSslMutual = Annotated[bool, _tls(help="Serve gRPC over TLS to clients with a certificate only.")]
GrpcServerCert = Annotated[Path | None, _tls(help="PEM file with the certificate chain of the gRPC service.")]
GrpcServerKey = Annotated[Path | None, _tls(help="PEM file with its private key.")]
GrpcRootCert = Annotated[Path | None, _tls(help="PEM file with the authorities that sign the certificates of gRPC clients.")]
HttpUseSsl = Annotated[bool, _tls(help="Serve HTTP over TLS.")]
HttpUseSslMutual = Annotated[bool, _tls(help="Serve HTTP over TLS to clients with a certificate only.")]
HttpServerCert = Annotated[Path | None, _tls(help="PEM file with the certificate chain of the HTTP service.")]
HttpServerKey = Annotated[Path | None, _tls(help="PEM file with its private key.")]
HttpRootCert = Annotated[Path | None, _tls(help="PEM file with the authorities that sign the certificates of HTTP clients.")]

TokenFile = Annotated[
    Path | None,
    _access(help="File of lines '<group>,<group>: <token>', or 'all: <token>'. With it, whatever no token allows is denied."),
]
OpenGroups = Annotated[str, _access(help="Groups that need no token, comma-separated.")]
GrpcRestricted = Annotated[list[str] | None, _access(help=f"{_RESTRICTION} The header is triton-grpc-protocol-<key>.")]
HttpRestricted = Annotated[list[str] | None, _access(help=f"{_RESTRICTION} The header is <key>.")]

HttpCorsOrigin = Annotated[
    list[str] | None, _access(help="An origin whose web pages may call HTTP, like https://chat.example.com, * for all. Repeatable.")
]

KeepaliveTime = Annotated[int, _grpc(min=1, help="Milliseconds of silence after which a client is pinged.")]
KeepaliveTimeout = Annotated[int, _grpc(min=1, help="Milliseconds that it then has to answer.")]
KeepaliveIdle = Annotated[bool, _grpc(help="Ping connections without calls, too.")]
PingsWithoutData = Annotated[int, _grpc(min=0, help="Pings in a row without data between them; 0 for any number.")]
PingInterval = Annotated[int, _grpc(min=0, help="Milliseconds that a client must let pass between two pings without data.")]
PingStrikes = Annotated[int, _grpc(min=0, help="Earlier pings of a client's before its connection is closed; 0 for any number.")]
ConnectionAge = Annotated[int | None, _grpc(min=1, help="Milliseconds after which a connection is to be made anew.")]
ConnectionGrace = Annotated[int | None, _grpc(min=1, help="Milliseconds that its open calls then have.")]
Compression = Annotated[CompressionLevel, _grpc(help="How much responses are compressed for clients that can read it.")]

GrpcMaxMessage = Annotated[int, _limits(min=1, help="Largest message in bytes, after decompression.")]
GrpcMaxMetadata = Annotated[int, _limits(min=1024, help="Most bytes of a call's metadata.")]
GrpcMaxStreams = Annotated[int, _limits(min=1, help="Calls at once on one connection.")]
GrpcMaxRequests = Annotated[int, _limits(min=1, help="Open requests on one stream before it is read further.")]
HttpMaxInput = Annotated[int, _limits(min=1, help="Largest body over HTTP in bytes, unpacked.")]
HttpMaxHeader = Annotated[int, _limits(min=1024, help="Most bytes of an HTTP request's first line and header fields.")]
MaxInputs = Annotated[int, _limits(min=1, help="Input tensors of a request.")]
MaxOutputs = Annotated[int, _limits(min=1, help="Requested outputs of a request.")]
MaxElements = Annotated[int, _limits(min=1, help="Elements of one input tensor.")]
MaxSamples = Annotated[int, _limits(min=1, max=MAX_SAMPLES, help="Samples of a prompt (n).")]
MaxStops = Annotated[int, _limits(min=1, max=MAX_STOPS, help="Stop strings of a request.")]
MaxStopLength = Annotated[int, _limits(min=1, max=MAX_STOP_CHARACTERS, help="Characters of one stop string.")]
MaxResponseBuffer = Annotated[int, _limits(min=1024, help="Bytes of answers that a stream leaves unread before it is cancelled.")]

TraceConfig = Annotated[
    list[str] | None,
    _logs(
        "--trace-config",
        help="mode=opentelemetry, rate=<n>, count=<n>, opentelemetry,url=<url> and so on. Repeatable.",
    ),
]
LogVerbose = Annotated[bool, _logs(help="Log every request.")]
LogFormatFlag = Annotated[LogFormat, _logs("--log-format", help="Text with local time or UTC, or one JSON object a line.")]
