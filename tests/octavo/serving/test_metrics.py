"""What is counted, exactly: per request, over several front ends, and over the deaths of both kinds of children."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
import tritonclient.grpc as triton
from calls import Stream, infer_request
from prometheus_client.parser import text_string_to_metric_families
from server import Server, running
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc


@pytest.fixture(scope="module")
def three(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with three front ends."""
    flags = ("--model-control-mode=explicit", "--load-model=tiny", "--front-ends=3")
    with running(repository, *flags, log=tmp_path_factory.mktemp("log") / "log") as server:
        yield server


COUNTED = [
    "nv_inference_request_success",
    "nv_inference_count",
    "nv_inference_exec_count",
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "vllm:time_to_first_token_seconds_count",
    "vllm:inter_token_latency_seconds_count",
    "vllm:time_per_output_token_seconds_count",
    "vllm:request_queue_time_seconds_count",
    "vllm:e2e_request_latency_seconds_count",
    "vllm:request_prompt_tokens_sum",
    "vllm:request_generation_tokens_sum",
    "vllm:request_params_n_sum",
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:num_preemptions_total",
    "octavo:engine_restarts_total",
]


def counted(server: Server) -> dict[str, float]:
    return {name: server.metric(name, model="tiny", version="1") for name in COUNTED}


def grown(server: Server, before: dict[str, float]) -> dict[str, float]:
    return {name: value - before[name] for name, value in counted(server).items() if value != before[name]}


def test_every_request_is_counted_once(server: Server, client: triton.InferenceServerClient) -> None:
    server.wait_until_free()
    before = counted(server)
    with Stream(server.grpc) as stream:
        stream.send(*(infer_request("abcde", 10) for _ in range(3))).rest()
    client._client_stub.ModelInfer(infer_request("abcde", 10, stream=False, n=2, temperature=1.0, seed=1))
    assert grown(server, before) == {
        "nv_inference_request_success": 4,
        "nv_inference_count": 4,
        "nv_inference_exec_count": 4,
        "vllm:prompt_tokens_total": 20,
        "vllm:generation_tokens_total": 50,
        "vllm:time_to_first_token_seconds_count": 4,
        "vllm:inter_token_latency_seconds_count": 45,
        "vllm:time_per_output_token_seconds_count": 45,
        "vllm:request_queue_time_seconds_count": 4,
        "vllm:e2e_request_latency_seconds_count": 4,
        "vllm:request_prompt_tokens_sum": 20,
        "vllm:request_generation_tokens_sum": 50,
        "vllm:request_params_n_sum": 5,
        "vllm:prefix_cache_queries_total": 25,
    }


TRITON = {
    "nv_inference_request_success": "counter",
    "nv_inference_request_failure": "counter",
    "nv_inference_count": "counter",
    "nv_inference_exec_count": "counter",
    "nv_inference_request_duration_us": "counter",
    "nv_inference_queue_duration_us": "counter",
    "nv_inference_compute_input_duration_us": "counter",
    "nv_inference_compute_infer_duration_us": "counter",
    "nv_inference_compute_output_duration_us": "counter",
    "nv_inference_pending_request_count": "gauge",
}
VLLM_BACKEND = {
    "vllm:prompt_tokens": "counter",
    "vllm:generation_tokens": "counter",
    "vllm:time_to_first_token_seconds": "histogram",
    "vllm:time_per_output_token_seconds": "histogram",
    "vllm:e2e_request_latency_seconds": "histogram",
    "vllm:request_prompt_tokens": "histogram",
    "vllm:request_generation_tokens": "histogram",
    "vllm:request_params_n": "histogram",
}
GATEWAYS = {
    "vllm:num_requests_running": "gauge",
    "vllm:num_requests_waiting": "gauge",
    "vllm:kv_cache_usage_perc": "gauge",
    "vllm:cache_config_info": "gauge",
    "vllm:lora_requests_info": "gauge",
}


def test_the_names_that_triton_vllm_backend_and_gateways_have(server: Server) -> None:
    families = {family.name: family for family in text_string_to_metric_families(server.get("/metrics")[1])}
    wanted = TRITON | VLLM_BACKEND | GATEWAYS
    assert {name: families[name].type for name in wanted} == wanted
    for name in wanted:
        assert all({"model", "version"} <= set(sample.labels) for sample in families[name].samples)
    assert {sample.labels["reason"] for sample in families["nv_inference_request_failure"].samples} == {
        "REJECTED",
        "CANCELED",
        "BACKEND",
        "OTHER",
    }
    (cache,) = (sample for sample in families["vllm:cache_config_info"].samples if sample.labels["model"] == "tiny")
    assert (cache.value, cache.labels["block_size"]) == (1, "16")
    assert int(cache.labels["num_gpu_blocks"]) > 0
    (lora,) = (sample for sample in families["vllm:lora_requests_info"].samples if sample.labels["model"] == "tiny")
    assert abs(lora.value - time.time()) < 60
    assert {name: lora.labels[name] for name in ("max_lora", "running_lora_adapters", "waiting_lora_adapters")} == {
        "max_lora": "0",
        "running_lora_adapters": "",
        "waiting_lora_adapters": "",
    }


def test_the_parts_of_a_duration_are_in_it(server: Server, client: triton.InferenceServerClient) -> None:
    client._client_stub.ModelInfer(infer_request(stream=False))
    parts = ("queue", "compute_input", "compute_infer", "compute_output")
    spent = {part: server.metric(f"nv_inference_{part}_duration_us", model="tiny") for part in parts}
    assert spent["compute_infer"] > 0
    assert sum(spent.values()) <= server.metric("nv_inference_request_duration_us", model="tiny") + len(spent)


def test_statistics_are_those_of_the_metrics(server: Server, client: triton.InferenceServerClient) -> None:
    (stats,) = client.get_inference_statistics("tiny").model_stats
    assert (stats.name, stats.version) == ("tiny", "1")
    client._client_stub.ModelInfer(infer_request(stream=False))
    with Stream(server.grpc) as stream:
        stream.send(infer_request(temperature=-1), infer_request(max_tokens=1900))
        while next(stream).error_message:
            pass
        stream.call.cancel()
    server.wait_until_free()
    (after,) = client.get_inference_statistics("tiny", "1").model_stats
    assert after.inference_count == stats.inference_count + 1 == after.execution_count
    assert after.last_inference > stats.last_inference
    success, before = after.inference_stats.success, stats.inference_stats.success
    assert success.count == before.count + 1
    assert success.ns > before.ns
    for part in ("queue", "compute_input", "compute_infer", "compute_output"):
        assert getattr(after.inference_stats, part).count == success.count
    assert after.inference_stats.fail.count == stats.inference_stats.fail.count + 2
    parts = after.inference_stats
    assert parts.queue.ns + parts.compute_input.ns + parts.compute_infer.ns <= success.ns


def test_every_response_of_a_stream_is_counted_by_its_place(server: Server, client: triton.InferenceServerClient) -> None:
    before = response_counts(client)
    with Stream(server.grpc) as stream:
        messages = len(stream.send(infer_request(max_tokens=6)).rest())
    client._client_stub.ModelInfer(infer_request(stream=False))
    after = response_counts(client)
    grown = {place: counts["success"] - before.get(place, {"success": 0})["success"] for place, counts in after.items()}
    assert [grown[place] for place in range(messages)] == [2] + [1] * (messages - 1)
    assert not any(count for place, count in grown.items() if place >= messages)
    assert all(counts["compute_infer"] == counts["success"] + counts["fail"] for counts in after.values())
    over_http = json.loads(server.get("/v2/models/tiny/stats")[1])["model_stats"][0]["response_stats"]
    assert {place: {name: part["count"] for name, part in over_http[str(place)].items()} for place in after} == after


def test_the_response_that_a_client_did_not_wait_for_is_cancelled(server: Server, client: triton.InferenceServerClient) -> None:
    before = response_counts(client)
    with Stream(server.grpc) as stream:
        next(stream.send(infer_request(max_tokens=1900)))
        stream.call.cancel()
        server.wait_until_free()
    after = response_counts(client)
    assert sum(c["cancel"] for c in after.values()) == sum(c["cancel"] for c in before.values()) + 1
    assert after[0]["success"] == before.get(0, {"success": 0})["success"] + 1


def response_counts(client: triton.InferenceServerClient) -> dict[int, dict[str, int]]:
    (stats,) = client.get_inference_statistics("tiny").model_stats
    return {
        int(place): {field.name: getattr(response, field.name).count for field in response.DESCRIPTOR.fields}
        for place, response in stats.response_stats.items()
    }


def test_waiting_is_not_computing(client: triton.InferenceServerClient, server: Server) -> None:
    def spent() -> dict[str, int]:
        (stats,) = client.get_inference_statistics("narrow").model_stats
        parts = {name: getattr(stats.inference_stats, name).ns for name in ("queue", "compute_infer", "compute_output")}
        return parts | {"first": stats.response_stats["0"].compute_infer.ns if stats.response_stats else 0}

    client.load_model("narrow")
    before = spent()
    with Stream(server.grpc) as first, Stream(server.grpc) as second:
        next(first.send(infer_request(max_tokens=700, model="narrow")))
        next(second.send(infer_request(max_tokens=1, model="narrow")))
        first.rest()
    grown = {name: ns - before[name] for name, ns in spent().items()}
    client.unload_model("narrow")
    # The first request computes while the second waits, which is nearly all of the second's time: were that computing too, it
    # would be counted twice.
    assert 0.6 * grown["compute_infer"] < grown["queue"] < 1.4 * grown["compute_infer"]
    assert grown["compute_output"] > 0
    assert grown["first"] < 0.5 * grown["queue"]


def test_statistics_of_what_is_not_there(client: triton.InferenceServerClient) -> None:
    stub = client._client_stub
    for request, text in [
        (pb.ModelStatisticsRequest(name="nope"), "requested model 'nope' is not available"),
        (pb.ModelStatisticsRequest(name="tiny", version="9"), "requested model version is not available for model 'tiny'"),
    ]:
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelStatistics(request)
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INVALID_ARGUMENT, text)
    assert [stats.name for stats in client.get_inference_statistics().model_stats] == ["tiny"]


def test_repeated_prompts_hit_the_prefix_cache(server: Server) -> None:
    before = counted(server)
    for _ in range(2):
        with Stream(server.grpc) as stream:
            stream.send(infer_request("The same sixty-four bytes over and over, twice sent, once computed", 1)).rest()
    assert grown(server, before)["vllm:prefix_cache_hits_total"] == 64


def test_three_front_ends_are_of_one_mind(three: Server) -> None:
    """Every call has a connection of its own, so that the kernel spreads them over the front ends."""
    before = counted(three)
    seen = []
    for _ in range(12):
        with grpc.insecure_channel(three.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            assert stub.ServerReady(pb.ServerReadyRequest()).ready
            stub.ModelInfer(infer_request("abcde", 4, stream=False))
            stats = stub.ModelStatistics(pb.ModelStatisticsRequest(name="tiny")).model_stats[0]
            seen.append(stats.inference_stats.success.count)
            index = stub.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
            assert [(model.name, model.state) for model in index.models] == [("tiny", "READY")]
    assert seen == list(range(seen[0], seen[0] + 12))
    assert grown(three, before)["vllm:generation_tokens_total"] == 48


def test_a_load_is_done_when_all_front_ends_serve_it(three: Server) -> None:
    client = three.client()
    client.load_model("other")
    for expected in (True, False):
        for _ in range(9):
            with grpc.insecure_channel(three.grpc, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                assert stub.ModelReady(pb.ModelReadyRequest(name="other")).ready is expected
        client.unload_model("other")
    client.close()


def test_counters_outlive_a_front_end_and_its_pages_are_freed(three: Server) -> None:
    before = counted(three)
    with Stream(three.grpc) as stream:
        stream.send(*(infer_request(max_tokens=1900) for _ in range(2)))
        next(stream)
        three.wait_until(lambda: three.metric("vllm:num_requests_running") == 2, "both requests to run")
        for front_end in three.processes("frontend"):
            front_end.kill()
        assert stream.status()[0] is grpc.StatusCode.UNAVAILABLE
    three.wait_until_free()
    three.wait_until(lambda: len(three.processes("frontend")) == 3, "the front ends to come back")
    three.wait_until(lambda: serves(three), "the front ends to serve")
    after = counted(three)
    assert all(after[name] >= before[name] for name in COUNTED)


def test_counters_outlive_an_engine(three: Server) -> None:
    before = counted(three)
    assert before["vllm:prefix_cache_queries_total"] > 0
    (engine,) = three.processes("engine")
    engine.kill()
    three.wait_until(lambda: not serves(three), "the death to be noticed")
    three.wait_until(lambda: serves(three), "the engine to come back")
    after = counted(three)
    assert after["octavo:engine_restarts_total"] == before["octavo:engine_restarts_total"] + 1
    assert all(after[name] >= before[name] for name in COUNTED)


def serves(server: Server) -> bool:
    with Stream(server.grpc, timeout=30) as stream:
        stream.send(infer_request(max_tokens=1))
        try:
            return not next(stream).error_message
        except grpc.RpcError:
            return False
