"""The limits of gRPC connections at their edges, each by its flag."""

import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from calls import Stream, add_flag, infer_request, is_final
from server import Server, running
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

METADATA, MESSAGE, STREAMS, UNREAD = 4096, 2**20, 3, 100_000
UNREAD_TEXT = f"The request was cancelled, because more than {UNREAD} bytes of answers were left unread."
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def narrow(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = [f"--grpc-max-concurrent-streams={STREAMS}", f"--grpc-max-metadata-size={METADATA}", "--log-format=ISO8601"]
    flags += [f"--grpc-max-message-size={MESSAGE}", f"--max-response-buffer-size={UNREAD}"]
    log = tmp_path_factory.mktemp("log") / "log"
    with running(repository, "--model-control-mode=explicit", "--load-model=tiny", *flags, log=log) as server:
        yield server


def code_of(server: Server, size: int, compression: grpc.Compression = grpc.Compression.NoCompression) -> Code:
    """How a message of ``size`` bytes goes that is an unknown field and nothing else."""
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ServerLive").with_call
        try:
            return call(_message(size), compression=compression, timeout=60)[1].code()
        except grpc.RpcError as error:
            return error.code()


def _message(size: int) -> bytes:
    """A field of number 15 with a length of four bytes: six bytes, then zeros."""
    length, head = size - 5, bytearray([15 << 3 | 2])
    for place in range(4):
        head.append((length >> 7 * place & 0x7F) | (0x80 if place < 3 else 0))
    return bytes(head) + bytes(length)


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_message_of_the_limit_passes_and_one_byte_more_does_not(narrow: Server, compression: grpc.Compression) -> None:
    assert code_of(narrow, MESSAGE, compression) is Code.OK
    assert code_of(narrow, MESSAGE + 1, compression) is Code.RESOURCE_EXHAUSTED


def test_a_bomb_costs_no_memory(narrow: Server) -> None:
    (process,) = narrow.processes("frontend")
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the peak begins anew
    before = process.memory_info().rss
    assert code_of(narrow, 200 * 2**20, grpc.Compression.Gzip) is Code.RESOURCE_EXHAUSTED
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text()).group(1)) * 1024
    assert peak - before < 32 * 2**20


def test_metadata_beyond_the_limit_is_refused(narrow: Server) -> None:
    with grpc.insecure_channel(narrow.grpc, options=[("grpc.max_metadata_size", 2**20)]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerLive(pb.ServerLiveRequest(), metadata=[("x", "y" * (METADATA - 1024))], timeout=30).live
        with pytest.raises(grpc.RpcError):
            stub.ServerLive(pb.ServerLiveRequest(), metadata=[("x", "y" * METADATA)], timeout=30)
        assert stub.ServerLive(pb.ServerLiveRequest(), timeout=30).live


def test_one_call_more_than_a_connection_may_have_waits_for_another_to_end(narrow: Server) -> None:
    with grpc.insecure_channel(narrow.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        ends = [threading.Event() for _ in range(STREAMS)]
        calls = [stub.ModelStreamInfer(_one_then_wait(end), timeout=60) for end in ends]
        for call in calls:
            next(call)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ServerLive(pb.ServerLiveRequest(), timeout=1)
        assert caught.value.code() is Code.DEADLINE_EXCEEDED
        ends[0].set()
        assert is_final(list(calls[0])[-1])
        assert stub.ServerLive(pb.ServerLiveRequest(), timeout=30).live
        for end in ends:
            end.set()


def _one_then_wait(end: threading.Event) -> Iterator[pb.ModelInferRequest]:
    yield infer_request(max_tokens=4)
    end.wait(60)


def test_who_does_not_read_is_cancelled_and_holds_no_page(narrow: Server) -> None:
    """With 20 logprobs a token takes 2 kB; a connection's own buffers hold a thousand or two, of 15,200, the limit some fifty."""
    request = infer_request(max_tokens=1900, request_id="unread", logprobs=20, n=8, temperature=1.0)
    add_flag(request, "return_logprobs", True)
    with Stream(narrow.grpc) as stream:
        next(stream.send(request))
        narrow.wait_until(lambda: narrow.metric("nv_inference_request_failure", reason="CANCELED") == 1, "the cancellation", 120)
        narrow.wait_until_free()
        messages = stream.rest()
        assert messages[-1].error_message == UNREAD_TEXT
        assert not any(message.error_message for message in messages[:-1])
    with Stream(narrow.grpc) as stream:
        assert is_final(stream.send(infer_request(max_tokens=1900)).rest()[-1])


def test_responses_are_compressed_for_who_can_read_it(narrow: Server, repository: Path, tmp_path: Path) -> None:
    flags = ["--model-control-mode=explicit", "--load-model=tiny", "--grpc-infer-response-compression-level=high"]
    with running(repository, *flags, log=tmp_path / "log") as packing:
        assert _bytes_of_metadata(packing) < 0.8 * _bytes_of_metadata(narrow)


def _bytes_of_metadata(server: Server) -> int:
    received: list[int] = []
    with _counting_relay(server.grpc, received) as address, grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stub.ModelMetadata(pb.ModelMetadataRequest(name="tiny"), timeout=30)
    return sum(received)


class _counting_relay:
    """Passes the bytes of one connection on, and notes how many come back."""

    def __init__(self, address: str, received: list[int]) -> None:
        host, port = address.rsplit(":", 1)
        self._target, self._received = (host, int(port)), received
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets = [self._listener]

    def __enter__(self) -> str:
        threading.Thread(target=self._serve, daemon=True).start()
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        for one in self._sockets:
            one.close()

    def _serve(self) -> None:
        client, server = self._listener.accept()[0], socket.create_connection(self._target)
        self._sockets += [client, server]
        threading.Thread(target=self._pass, args=(client, server, []), daemon=True).start()
        self._pass(server, client, self._received)

    def _pass(self, source: socket.socket, target: socket.socket, seen: list[int]) -> None:
        try:
            while data := source.recv(2**16):
                seen.append(len(data))
                target.sendall(data)
        except OSError:
            return


def test_the_log_says_when_as_iso_8601(narrow: Server) -> None:
    stamp = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR) (supervisor|front end \d+|engine .*): ")
    lines = [line for line in narrow.log.read_text().splitlines() if " supervisor: " in line]
    assert lines
    assert all(stamp.match(line) for line in lines)


def test_a_connection_that_is_old_is_to_be_made_anew(repository: Path, tmp_path: Path) -> None:
    flags = ["--model-control-mode=explicit", "--grpc-max-connection-age=500", "--grpc-max-connection-age-grace=300"]
    with running(repository, *flags, log=tmp_path / "log") as server:
        started = time.monotonic()
        with Stream(server.grpc) as stream:
            code, _ = stream.status()
        assert code is Code.UNAVAILABLE
        assert 0.5 < time.monotonic() - started < 30
        assert server.get("/v2/health/live")[0] == 200
