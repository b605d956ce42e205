"""The pool that server reflection reads: our service, health and reflection itself."""

import pytest
from google.protobuf.descriptor_pool import DescriptorPool

from octavo.wire import POOL
from octavo.wire.reflection import reflection_pool


@pytest.fixture(scope="module")
def pool() -> DescriptorPool:
    reflection_pool()
    return reflection_pool()


def test_it_is_our_pool(pool: DescriptorPool) -> None:
    assert pool is POOL


@pytest.mark.parametrize(
    ("symbol", "file"),
    [
        ("inference.GRPCInferenceService", "grpc_service.proto"),
        ("inference.ModelConfig", "model_config.proto"),
        ("grpc.health.v1.Health", "grpc_health/v1/health.proto"),
        ("grpc.reflection.v1alpha.ServerReflection", "reflection.proto"),
    ],
)
def test_services_are_found(pool: DescriptorPool, symbol: str, file: str) -> None:
    assert pool.FindFileContainingSymbol(symbol).name.endswith(file)
