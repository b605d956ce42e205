"""Server reflection, as grpc-reflection answers it: which services there are, and the files that describe them."""

from collections.abc import Callable, Iterable

from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.reflection import SERVICE_NAME, ReflectionServicer
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from octavo.serving.grpc.errors import refusal
from octavo.serving.grpc.handlers import parse, visible

METHOD = f"/{SERVICE_NAME}/ServerReflectionInfo"


def reflection(services: Iterable[str], pool: DescriptorPool) -> Callable[[bytes], bytes]:
    """What answers one message after the other. Raises ``CallRefused``."""
    servicer = ReflectionServicer((*services, SERVICE_NAME), pool)

    def answer(data: bytes) -> bytes:
        try:
            (response,) = servicer.ServerReflectionInfo((parse(ServerReflectionRequest, data),), None)
            return bytes(response.SerializeToString())
        except Exception as error:
            raise refusal(visible(error), "ServerReflectionInfo") from None

    return answer
