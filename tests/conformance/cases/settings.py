"""Trace and log settings, and shared memory."""

from functools import partial
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from conformance.cases import Case
from conformance.client import Client


def _trace(model: str = "", **settings: list[str]) -> Case:
    values = {name: pb.TraceSettingRequest.SettingValue(value=value) for name, value in settings.items()}
    return partial(Client.call, rpc="TraceSetting", request=pb.TraceSettingRequest(model_name=model, settings=values))


def _log(**settings: dict[str, Any]) -> Case:
    values = {name: pb.LogSettingsRequest.SettingValue(**value) for name, value in settings.items()}
    return partial(Client.call, rpc="LogSettings", request=pb.LogSettingsRequest(settings=values))


def _memory(rpc: str, **fields: Any) -> Case:
    return partial(Client.call, rpc=rpc, request=getattr(pb, f"{rpc}Request")(**fields))


CASES: dict[str, Case] = {
    "trace: read": _trace(),
    "trace: read of a model": _trace("llm"),
    "trace: read of an unknown model": _trace("nope"),
    "trace: rate": _trace(trace_rate=["10"]),
    "trace: rate back": _trace(trace_rate=[]),
    "trace: rate that is no number": _trace(trace_rate=["x"]),
    "trace: level without a file": _trace(trace_level=["TIMESTAMPS"]),
    "trace: level off": _trace(trace_level=["OFF"]),
    "trace: unknown level": _trace(trace_level=["nope"]),
    "trace: unknown setting": _trace(nope=["1"]),
    "trace: two rates": _trace(trace_rate=["1", "2"]),
    "trace: rate out of range": _trace(trace_rate=["3000000000"]),
    "trace: count": _trace(trace_count=["5"]),
    "trace: count below all": _trace(trace_count=["-2"]),
    "trace: count back": _trace(trace_count=[]),
    "trace: off and on": _trace(trace_level=["OFF", "TIMESTAMPS"]),
    "trace: log frequency": _trace(log_frequency=["7"]),
    "trace: log frequency back": _trace(log_frequency=[]),
    "trace: file": _trace(trace_file=["/tmp/octavo_no_such_file"]),
    "trace: rate of a model": _trace("llm", trace_rate=["10"]),
    "trace: rate of a model back": _trace("llm", trace_rate=[]),
    "log: read": _log(),
    "log: verbose": _log(log_verbose_level={"uint32_param": 1}),
    "log: quiet": _log(log_verbose_level={"uint32_param": 0}),
    "log: no warnings": _log(log_warning={"bool_param": False}),
    "log: warnings": _log(log_warning={"bool_param": True}),
    "log: ISO8601": _log(log_format={"string_param": "ISO8601"}),
    "log: default format": _log(log_format={"string_param": "default"}),
    "log: file": _log(log_file={"string_param": "/tmp/octavo_no_such_file"}),
    "log: wrong type of level": _log(log_verbose_level={"bool_param": True}),
    "log: wrong type of format": _log(log_format={"bool_param": True}),
    "log: unknown setting": _log(nope={"bool_param": True}),
    "log: wrong type": _log(log_info={"string_param": "x"}),
    "log: unknown format": _log(log_format={"string_param": "nope"}),
    "shared memory: status": _memory("SystemSharedMemoryStatus"),
    "shared memory: status of an unknown region": _memory("SystemSharedMemoryStatus", name="nope"),
    "shared memory: register": _memory("SystemSharedMemoryRegister", name="a", key="/octavo_no_such_key", byte_size=64),
    "shared memory: unregister": _memory("SystemSharedMemoryUnregister", name="nope"),
    "shared memory: status of devices": _memory("CudaSharedMemoryStatus"),
    "shared memory: register of a device": _memory("CudaSharedMemoryRegister", name="a", raw_handle=b"x", byte_size=64),
    "shared memory: unregister of a device": _memory("CudaSharedMemoryUnregister", name="nope"),
}
