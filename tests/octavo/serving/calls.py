"""Inference calls as a client makes them, on tritonclient's own messages."""

import json
import queue
import struct
from collections.abc import Iterable, Iterator

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

FINAL = "triton_final_response"


def infer_request(
    prompt: str = "hello", max_tokens: int = 8, request_id: str = "", stream: bool = True, **more: object
) -> pb.ModelInferRequest:
    """A greedy request for exactly ``max_tokens``; ``more``: further sampling parameters, or the model's name and version."""
    model, version = str(more.pop("model", "tiny")), str(more.pop("version", ""))
    sampling = {"temperature": 0, "ignore_eos": True, "max_tokens": max_tokens, **more}
    request = pb.ModelInferRequest(model_name=model, model_version=version, id=request_id)
    add_text(request, "text_input", prompt.encode())
    add_text(request, "sampling_parameters", json.dumps(sampling).encode())
    add_flag(request, "stream", stream)
    return request


def add_text(request: pb.ModelInferRequest, name: str, text: bytes) -> None:
    request.inputs.add(name=name, datatype="BYTES", shape=[1])
    request.raw_input_contents.append(struct.pack("<I", len(text)) + text)


def add_flag(request: pb.ModelInferRequest, name: str, value: bool) -> None:
    request.inputs.add(name=name, datatype="BOOL", shape=[1])
    request.raw_input_contents.append(struct.pack("?", value))


def text_of(response: pb.ModelInferResponse) -> bytes:
    names = [output.name for output in response.outputs]
    raw = response.raw_output_contents[names.index("text_output")]
    (length,) = struct.unpack_from("<I", raw)
    assert len(raw) == 4 + length
    return raw[4:]


def is_final(message: pb.ModelStreamInferResponse) -> bool:
    return message.infer_response.parameters[FINAL].bool_param


class Streams:
    """Many streams on one connection with one long request each, to be used as a context."""

    def __init__(self, address: str, count: int, max_tokens: int = 1900) -> None:
        self._channel = grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)])
        stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._calls = [stub.ModelStreamInfer(iter([infer_request(max_tokens=max_tokens)]), timeout=120) for _ in range(count)]

    def __enter__(self) -> list[Iterator[pb.ModelStreamInferResponse]]:
        return self._calls

    def __exit__(self, *_: object) -> None:
        for call in self._calls:
            call.cancel()
        self._channel.close()


class Stream:
    """One open ModelStreamInfer call, to be used as a context. Leaving it cancels what is still open.

    ``narrow``: the server may send little more than 16 KiB that was not read, whatever the connection could hold.
    """

    def __init__(
        self, address: str, metadata: Iterable[tuple[str, str]] = (), timeout: float | None = 60, narrow: bool = False
    ) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        options += [("grpc.http2.lookahead_bytes", 2**14), ("grpc.http2.bdp_probe", 0)] if narrow else []
        self._channel = grpc.insecure_channel(address, options=options)
        self._requests: queue.SimpleQueue[pb.ModelInferRequest | None] = queue.SimpleQueue()
        stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self.call = stub.ModelStreamInfer(iter(self._requests.get, None), metadata=tuple(metadata), timeout=timeout)

    def send(self, *requests: pb.ModelInferRequest) -> "Stream":
        for request in requests:
            self._requests.put(request)
        return self

    def half_close(self) -> "Stream":
        self._requests.put(None)
        return self

    def __iter__(self) -> Iterator[pb.ModelStreamInferResponse]:
        return self.call

    def __next__(self) -> pb.ModelStreamInferResponse:
        return next(self.call)

    def rest(self) -> list[pb.ModelStreamInferResponse]:
        """Everything to come after half-closing; the stream must then end well."""
        self.half_close()
        messages = list(self.call)
        assert self.call.code() is grpc.StatusCode.OK
        return messages

    def status(self) -> tuple[grpc.StatusCode, str]:
        """How the stream ended, after reading what was left."""
        try:
            for _ in self.call:
                pass
        except grpc.RpcError:
            pass
        return self.call.code(), self.call.details()

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self.half_close()
        self.call.cancel()
        self._channel.close()
