"""``reflection_pool``: everything that server reflection may be asked about, on our pool. Apart because it imports gRPC."""

from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from octavo.wire import POOL


def reflection_pool() -> DescriptorPool:
    """Our pool with the files of ``grpc.health.v1`` and of reflection itself added; may be called any number of times."""
    for module in (health_pb2, reflection_pb2):
        POOL.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    return POOL
