"""The one client of both servers: calls with raw messages, so that a request may be as wrong as it likes."""

import contextlib
import http.client
import queue
import re
import struct
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import grpc
from tritonclient.grpc import service_pb2 as pb

from conformance import answers
from conformance.answers import CODES, Data

SERVICE = "/inference.GRPCInferenceService/"
TIMEOUT = 30.0
# Octavo lets settings be changed only by who shows what not everybody knows; to Triton this says nothing.
ADMIN = "conformance"
_LOST = re.compile("Stream removed|failed to connect|Socket closed|recvmsg|sendmsg")
_FIELDS = {"BOOL": "bool_contents", "INT64": "int64_contents", "UINT64": "uint64_contents", "FP32": "fp32_contents",
           "FP64": "fp64_contents", "BYTES": "bytes_contents"}  # fmt: skip


class Tensor(NamedTuple):
    """An input. ``raw`` overrides the bytes that its values would be."""

    name: str
    datatype: str
    shape: Sequence[int]
    values: Sequence[Any]
    raw: bytes | None = None

    def data(self) -> bytes:
        """Its bytes."""
        if self.raw is not None:
            return self.raw
        if self.datatype == "BYTES":
            return b"".join(struct.pack("<I", len(value)) + value for value in self.values)
        return struct.pack(f"<{len(self.values)}{CODES[self.datatype]}", *self.values)


def infer(
    model: str,
    *tensors: Tensor,
    id: str = "",
    version: str = "",
    outputs: Iterable[str] = (),
    typed: bool = False,
    **parameters: Any,
) -> pb.ModelInferRequest:
    """A request; a parameter's value is a Python value or an ``InferParameter``."""
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=id)
    for tensor in tensors:
        described = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if typed:
            field = _FIELDS.get(tensor.datatype) or ("uint_contents" if tensor.datatype.startswith("U") else "int_contents")
            getattr(described.contents, field).extend(tensor.values)
        else:
            request.raw_input_contents.append(tensor.data())
    for name in outputs:
        request.outputs.add(name=name)
    for name, value in parameters.items():
        request.parameters[name].CopyFrom(parameter(value))
    return request


def parameter(value: Any) -> pb.InferParameter:
    """The parameter that holds ``value``."""
    if isinstance(value, pb.InferParameter):
        return value
    kind = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}[type(value)]
    return pb.InferParameter(**{kind: value})


class ServerGone(Exception):
    """The connection was lost, as when a server has crashed."""


class Client:
    """One connection to one server's gRPC service, and calls of its HTTP service; used as a context."""

    def __init__(self, grpc_address: str, http_address: str) -> None:
        self._channel = grpc.insecure_channel(grpc_address, options=[("grpc.max_receive_message_length", -1)])
        self._http = http_address

    def call(self, rpc: str, request: Any) -> Data:
        """A unary RPC of the service, which is found by the type of its request."""
        reply_type = getattr(pb, f"{rpc}Response")
        return self.unary(SERVICE + rpc, request.SerializeToString(), lambda data: answers.plain(reply_type.FromString(data)))

    def unary(self, path: str, data: bytes, read: Callable[[bytes], Any] = bytes.hex, compressed: bool = False) -> Data:
        """Any unary RPC with any bytes."""
        method = self._channel.unary_unary(path)
        compression = grpc.Compression.Gzip if compressed else None
        try:
            return {
                "code": "OK",
                "reply": read(
                    method(data, timeout=TIMEOUT, compression=compression, metadata=[("triton-grpc-protocol-admin", ADMIN)])
                ),
            }
        except grpc.RpcError as error:
            return answers.refused(*_status(error))

    def stream(
        self,
        *requests: pb.ModelInferRequest | bytes,
        metadata: Sequence[tuple[str, str]] = (),
        timeout: float = TIMEOUT,
        stop_after: int | None = None,
        one_by_one: bool = False,
    ) -> Data:
        """A stream of ``requests``, closed on our side after the last one, and all that comes.

        ``stop_after`` cancels after that many messages. ``one_by_one`` sends each request only after a message for the one before.
        """
        waiting: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        outgoing = [data if isinstance(data, bytes) else data.SerializeToString() for data in requests] + [None]
        method = self._channel.stream_stream(SERVICE + "ModelStreamInfer")
        call = method(iter(waiting.get, None), metadata=tuple(metadata), timeout=timeout)
        for data in outgoing[: 1 if one_by_one else None]:
            waiting.put(data)
        rest = iter(outgoing[1:] if one_by_one else ())
        messages = []
        with contextlib.suppress(grpc.RpcError):
            for data in call:
                messages.append(pb.ModelStreamInferResponse.FromString(data))
                waiting.put(next(rest, None))
                if len(messages) == stop_after:
                    call.cancel()
        waiting.put(None)
        return answers.stream(messages, *_status(call))

    def http(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Data:
        """One HTTP request, on a connection of its own."""
        connection = http.client.HTTPConnection(self._http, timeout=TIMEOUT)
        try:
            connection.request(method, path, body, {"admin": ADMIN, **(headers or {})})
            response = connection.getresponse()
            return answers.http_response(response.status, dict(response.getheaders()), response.read())
        except OSError as error:
            raise ServerGone(str(error)) from error
        finally:
            connection.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._channel.close()


def _status(call: Any) -> tuple[str, str]:
    """How a call ended. Raises ``ServerGone`` if it was not the server that ended it."""
    code, text = call.code(), call.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and _LOST.search(text):
        raise ServerGone(text)
    return code.name, text
