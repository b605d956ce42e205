"""Server reflection, as grpc-reflection answers it: which services there are, and the files that describe them."""

from collections.abc import Callable, Iterable

from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha.reflection import SERVICE_NAME, ReflectionServicer
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from octavo.serving.grpc.errors import UNPARSABLE
from octavo.serving.http2.status import CallRefused, Status

METHOD = f"/{SERVICE_NAME}/ServerReflectionInfo"


def reflection(services: Iterable[str], pool: DescriptorPool) -> Callable[[bytes], bytes]:
    """What answers one message after the other. Raises ``CallRefused``."""
    servicer = ReflectionServicer((*services, SERVICE_NAME), pool)

    def answer(data: bytes) -> bytes:
        try:
            request = ServerReflectionRequest.FromString(data)
        except DecodeError:
            raise CallRefused(Status.INTERNAL, UNPARSABLE) from None
        (response,) = servicer.ServerReflectionInfo((request,), None)
        return bytes(response.SerializeToString())

    return answer
