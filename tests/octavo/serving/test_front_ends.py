"""Several front ends are one server: the same answers from each, one count of everything, and no request of one in another."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from calls import add_flag, infer_request, is_final, text_of
from http_calls import call
from server import Server, running
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]
TIMES = 50
REQUESTS = {
    "ModelReady": pb.ModelReadyRequest(name="tiny"),
    "ModelMetadata": pb.ModelMetadataRequest(name="tiny"),
    "ModelConfig": pb.ModelConfigRequest(name="tiny"),
    "ModelStatistics": pb.ModelStatisticsRequest(name="tiny"),
    "ModelInfer": infer_request("one of many", 3, "u", stream=False),
    "ModelStreamInfer": infer_request("one of many", 3, "s"),
    "RepositoryModelLoad": pb.RepositoryModelLoadRequest(model_name="unknown"),
    "RepositoryModelUnload": pb.RepositoryModelUnloadRequest(model_name="never loaded"),
}


def start(repository: Path, tmp_path_factory: pytest.TempPathFactory, front_ends: int) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("log") / "server.log"
    flags = (f"--front-ends={front_ends}", "--model-control-mode=explicit", "--load-model=tiny")
    with running(repository, *flags, log=log) as server:
        yield server


@pytest.fixture(scope="module")
def three(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from start(repository, tmp_path_factory, 3)


@pytest.fixture(scope="module")
def four(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from start(repository, tmp_path_factory, 4)


def one_channel_to_each(server: Server, stack: ExitStack) -> list[grpc.Channel]:
    """Channels whose connections the system has given to different front ends, one for each there is."""
    found: dict[int, grpc.Channel] = {}
    front_ends = server.processes("frontend")
    for _ in range(200):
        before = connections(server)
        channel = stack.enter_context(grpc.insecure_channel(server.grpc, options=OWN_CONNECTION))
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ServerLive(pb.ServerLiveRequest(), timeout=30)
        for pid, count in connections(server).items():
            if count > before[pid]:
                found.setdefault(pid, channel)
        if len(found) == len(front_ends):
            return list(found.values())
    raise AssertionError(f"200 connections went to {len(found)} of {len(front_ends)} front ends")


def connections(server: Server) -> dict[int, int]:
    """How many clients each front end has, by its process id."""
    port = int(server.grpc.rpartition(":")[2])
    return {
        process.pid: sum(c.status == "ESTABLISHED" and c.laddr.port == port for c in process.connections("tcp"))
        for process in server.processes("frontend")
    }


def answer(channel: grpc.Channel, rpc: str) -> tuple[grpc.StatusCode, str, object]:
    """How one call of ``rpc`` went, without what differs by the time."""
    stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
    default = getattr(pb, SERVICE.methods_by_name[rpc].input_type.name)()
    request = REQUESTS.get(rpc, default)
    try:
        if rpc == "ModelStreamInfer":
            messages = list(stub.ModelStreamInfer(iter([request]), timeout=60))
            return (
                grpc.StatusCode.OK,
                "",
                ({m.infer_response.id for m in messages}, b"".join(text_of(m.infer_response) for m in messages)),
            )
        return grpc.StatusCode.OK, "", getattr(stub, rpc)(request, timeout=60)
    except grpc.RpcError as error:
        return error.code(), error.details(), None


def test_every_rpc_is_answered_alike_by_all_and_counters_only_grow(three: Server) -> None:
    answers: dict[str, list[tuple[grpc.StatusCode, str, object]]] = {method.name: [] for method in SERVICE.methods}
    with ExitStack() as stack:
        channels = one_channel_to_each(three, stack)
        for turn in range(TIMES):
            for place, rpc in enumerate(answers):
                answers[rpc].append(answer(channels[(turn + place) % len(channels)], rpc))
    statistics = [reply.model_stats[0].inference_stats for _, _, reply in answers.pop("ModelStatistics")]
    for counter in ("success", "queue", "compute_infer"):
        counts = [(getattr(stats, counter).count, getattr(stats, counter).ns) for stats in statistics]
        assert counts == sorted(counts), counter
    assert statistics[-1].success.count - statistics[0].success.count == 2 * (TIMES - 1)
    for rpc, given in answers.items():
        assert len(given) == TIMES
        assert all(one == given[0] for one in given), rpc
    assert answers["ModelInfer"][0][2].id == "u"
    assert answers["ModelStreamInfer"][0][2][0] == {"s"}


def test_whoever_watches_sees_the_same_from_every_front_end(three: Server) -> None:
    """Every call has a connection of its own, so that the kernel spreads them over the front ends."""
    seen = [call(three, "GET", "/page/live").json["models"] for _ in range(12)]
    for (model,) in seen:
        assert model["picture"].pop("taken_at") > 0
    assert all(models == seen[0] for models in seen)


def test_a_request_is_cancelled_by_its_id_from_every_front_end(three: Server) -> None:
    with ExitStack() as stack:
        channels = one_channel_to_each(three, stack)
        stubs = [service_pb2_grpc.GRPCInferenceServiceStub(channel) for channel in channels]
        for number, stub in enumerate(stubs):
            call = stub.ModelStreamInfer(iter([infer_request("x", 1900, f"long-{number}")]), timeout=60)
            next(call)
            stop = pb.ModelInferRequest(model_name="tiny", id=f"long-{number}")
            add_flag(stop, "stop", True)
            stubs[(number + 1) % len(stubs)].ModelInfer(stop, timeout=30)
            *_, last = call
            assert last.error_message == "Request was cancelled"
            assert last.infer_response.id == f"long-{number}"
    three.wait_until_free()


def test_no_request_is_mixed_up_with_another(four: Server) -> None:
    """64 streams on 16 connections, two requests each, every one with a prompt and an id of its own."""
    prompts = [f"{number} bottles, {number * number} walls" for number in range(128)]
    with grpc.insecure_channel(four.grpc, options=OWN_CONNECTION) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        alone = [stub.ModelInfer.future(infer_request(prompt, 12, stream=False), timeout=120) for prompt in prompts]
        expected = [text_of(call.result()).removeprefix(prompt.encode()) for prompt, call in zip(prompts, alone, strict=True)]
    assert len(set(expected)) > len(expected) // 2
    with ExitStack() as stack:
        channels = [stack.enter_context(grpc.insecure_channel(four.grpc, options=OWN_CONNECTION)) for _ in range(16)]
        one_channel_to_each(four, stack)
        stubs = [service_pb2_grpc.GRPCInferenceServiceStub(channel) for channel in channels]
        requests = [infer_request(prompt, 12, f"id-{number}") for number, prompt in enumerate(prompts)]
        calls = [stubs[n % 16].ModelStreamInfer(iter([requests[n], requests[n + 64]]), timeout=120) for n in range(64)]
        for number, call in enumerate(calls):
            texts: dict[str, bytes] = {}
            finals = []
            for message in call:
                response = message.infer_response
                texts[response.id] = texts.get(response.id, b"") + text_of(response)
                finals += [response.id] if is_final(message) else []
            mine = {f"id-{n}": expected[n] for n in (number, number + 64)}
            assert texts == mine
            assert sorted(finals) == sorted(mine)


def test_a_burst_of_calls_is_answered_whole(server: Server) -> None:
    """gRPC itself would refuse some at random once 1,000 wait to be looked at."""
    with grpc.insecure_channel(server.grpc, options=OWN_CONNECTION) as channel:
        live = service_pb2_grpc.GRPCInferenceServiceStub(channel).ServerLive
        calls = [live.future(pb.ServerLiveRequest(), timeout=60) for _ in range(2500)]
        assert {call.code() for call in calls} == {grpc.StatusCode.OK}
