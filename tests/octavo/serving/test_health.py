"""grpc.health.v1 and reflection, by their own stubs."""

import threading

import grpc
import pytest
import tritonclient.grpc as triton
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from server import Server
from tritonclient.utils import InferenceServerException

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def test_check_answers_for_any_service_and_for_models(server: Server) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        for service in ("", "inference.GRPCInferenceService", "whatever", "tiny"):
            assert check(health_pb2.HealthCheckRequest(service=service)).status == SERVING


def test_watchers_see_every_change(server: Server, client: triton.InferenceServerClient) -> None:
    seen: list[list[int]] = [[], [], []]

    def watch(place: int) -> None:
        for response in health_pb2_grpc.HealthStub(channels[place]).Watch(health_pb2.HealthCheckRequest(), timeout=60):
            seen[place].append(response.status)
            if len(seen[place]) == 3:
                return

    channels = [grpc.insecure_channel(server.grpc) for _ in seen]
    threads = [threading.Thread(target=watch, args=(place,)) for place in range(len(seen))]
    for thread in threads:
        thread.start()
    server.wait_until(lambda: all(seen), "the first status")
    try:
        client.load_model("broken")
    except InferenceServerException:
        client.unload_model("broken")
    for thread, channel in zip(threads, channels, strict=True):
        thread.join(timeout=30)
        channel.close()
    assert seen == [[SERVING, NOT_SERVING, SERVING]] * 3


def test_liveness_is_not_readiness(server: Server, client: triton.InferenceServerClient) -> None:
    with grpc.insecure_channel(server.grpc) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        with pytest.raises(InferenceServerException):
            client.load_model("broken")
        statuses = [check(health_pb2.HealthCheckRequest(service=service)).status for service in ("", "liveness")]
        client.unload_model("broken")
    assert statuses == [NOT_SERVING, SERVING]


def test_reflection_describes_all_services(server: Server) -> None:
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.GRPCInferenceService"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health"),
    ]
    with grpc.insecure_channel(server.grpc) as channel:
        info = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        listed, inference, health = list(info(iter(requests), timeout=30))
    services = {service.name for service in listed.list_services_response.service}
    assert services >= {"inference.GRPCInferenceService", "grpc.health.v1.Health"}
    files = [FileDescriptorProto.FromString(data) for data in inference.file_descriptor_response.file_descriptor_proto]
    assert any(len(service.method) == 20 for file in files for service in file.service)
    assert health.file_descriptor_response.file_descriptor_proto
