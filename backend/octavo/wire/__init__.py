"""The wire contract as Python: the messages of ``protos/`` on a pool of their own. Knows protobuf and nothing of Octavo."""

from octavo.wire import grpc_service_pb2 as pb
from octavo.wire import model_config_pb2 as mc
from octavo.wire._pool import POOL

__all__ = ["POOL", "mc", "pb"]
