"""The gRPC port of a real server: damaged messages to every method, and damaged frames below them."""

import random
import socket
import threading
from collections import Counter
from collections.abc import Iterable

import grpc
from google.protobuf.message import DecodeError, Message
from server import Server

from fuzz import damage, grpc_cases
from fuzz.finding import Finding
from fuzz.wire import PATIENCE, exchange
from octavo.wire import pb

Code = grpc.StatusCode
SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
PREFIX = f"/{SERVICE.full_name}/"
UNPARSABLE = "Unable to parse request"
OURS = "An internal error has ended this request"
FINE = {Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.UNIMPLEMENTED, Code.UNAVAILABLE, Code.CANCELLED}
FINE |= {Code.PERMISSION_DENIED}  # settings, for everybody on a server without credentials
STREAMED, FRAMES = 50, 10  # messages of one stream, calls between two batches of broken frames


def grpc_wire(server: Server, count: int, seed: int) -> Counter[str]:
    """Send ``server`` as many cases: on streams, one by one, to the other methods, and as broken frames. Raises ``Finding``."""
    chance, ends = random.Random(seed), Counter[str]()
    with grpc.insecure_channel(server.grpc) as channel:
        recorded = recorded_call(server)
        while (left := count - ends.total()) > 0:
            ends += _streamed(channel, list(grpc_cases.cases(min(left, STREAMED), chance)))
            if (left := count - ends.total()) > 0:
                ends += _one_by_one(channel, list(_calls(min(left, STREAMED), chance)))
            for _ in range(min(FRAMES, count - ends.total())):
                exchange(server.grpc, damage.damaged(recorded, chance), 0)
                ends["broken frames"] += 1
    return ends


def _streamed(channel: grpc.Channel, messages: list[bytes]) -> Counter[str]:
    """All on one stream, which must end well once each is answered or refused."""
    call = channel.stream_stream(f"{PREFIX}ModelStreamInfer")(iter(messages), timeout=PATIENCE)
    try:
        for data in call:
            error = pb.ModelStreamInferResponse.FromString(data).error_message
            if OURS in error:
                raise Finding(messages, error)
    except grpc.RpcError as error:
        raise Finding(messages, f"{error.code()}: {error.details()}") from error
    return Counter({"on a stream": len(messages)})


def _calls(count: int, chance: random.Random) -> Iterable[tuple[str, bytes]]:
    """Unary calls: half of them ``ModelInfer``, the others of every method with what may be no message of its."""
    methods = [method.name for method in SERVICE.methods if not method.client_streaming]
    for data in grpc_cases.cases(count, chance):
        method = "ModelInfer" if chance.random() < 0.5 else chance.choice(methods)
        # What is loaded stays loaded: the other cases are for it.
        names = ("nope", "x") if method.startswith("Repository") else ("tiny", "nope", damage.text(chance))
        small = pb.ModelReadyRequest(name=chance.choice(names), version=damage.text(chance)[:25])
        yield method, data if method == "ModelInfer" else damage.damaged(small.SerializeToString(), chance)


def _one_by_one(channel: grpc.Channel, calls: list[tuple[str, bytes]]) -> Counter[str]:
    under_way = [channel.unary_unary(PREFIX + method).future(data, timeout=PATIENCE) for method, data in calls]
    ends: Counter[str] = Counter()
    for (method, data), future in zip(calls, under_way, strict=True):
        code, text = future.code(), future.details()
        if code not in FINE and not _may_be_internal(method, data, code, text):
            raise Finding((method, data), f"{code}: {text}")
        ends[f"{code.name}"] += 1
    return ends


def _may_be_internal(method: str, data: bytes, code: Code, text: str) -> bool:
    """Bytes that are no message, and Triton's answer to loading what is not there."""
    if code is not Code.INTERNAL:
        return False
    return (text == UNPARSABLE and not _decodes(method, data)) or (method == "RepositoryModelLoad" and "failed to load" in text)


def _decodes(method: str, data: bytes) -> bool:
    message: type[Message] = getattr(pb, SERVICE.methods_by_name[method].input_type.name)
    try:
        message.FromString(data)
    except DecodeError:
        return False
    return True


def recorded_call(server: Server) -> bytes:
    """What a client sends for one call, from its connection's first byte on."""
    host, port = server.grpc.rsplit(":", 1)
    said = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay = threading.Thread(target=_relay, args=(listener, (host, int(port)), said), daemon=True)
        relay.start()
        with grpc.insecure_channel(f"127.0.0.1:{listener.getsockname()[1]}") as channel:
            whole = grpc_cases.request(text_input="hello").SerializeToString()
            channel.unary_unary(f"{PREFIX}ModelInfer")(whole, timeout=PATIENCE)
        relay.join(PATIENCE)
    return bytes(said)


def _relay(listener: socket.socket, target: tuple[str, int], said: bytearray) -> None:
    with listener.accept()[0] as client, socket.create_connection(target) as server:
        back = threading.Thread(target=_pass, args=(server, client, bytearray()), daemon=True)
        back.start()
        _pass(client, server, said)


def _pass(source: socket.socket, to: socket.socket, seen: bytearray) -> None:
    try:
        while data := source.recv(1 << 16):
            seen += data
            to.sendall(data)
    except OSError:
        return
