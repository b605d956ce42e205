"""Our descriptors against those that tritonclient ships, field by field."""

from typing import Any

import pytest
import tritonclient.grpc.model_config_pb2 as triton_mc
import tritonclient.grpc.service_pb2 as triton_pb
from google.protobuf import descriptor_pb2

from octavo.wire import POOL, mc, pb

FILES = [pytest.param(pb, triton_pb, id="grpc_service"), pytest.param(mc, triton_mc, id="model_config")]


def as_proto(module: Any) -> descriptor_pb2.FileDescriptorProto:
    """The file as a message, without what JSON names and comments add."""
    proto = descriptor_pb2.FileDescriptorProto()
    module.DESCRIPTOR.CopyToProto(proto)
    return proto


def enums(proto: Any, prefix: str = "") -> dict[str, dict[str, int]]:
    return {f"{prefix}{enum.name}": {value.name: value.number for value in enum.value} for enum in proto.enum_type}


def messages(proto: Any, prefix: str = "") -> dict[str, Any]:
    """Full name -> descriptor, of every message and everything nested in it."""
    found = {}
    for message in proto.message_type if not prefix else proto.nested_type:
        name = f"{prefix}.{message.name}"
        found[name] = message
        found |= messages(message, name)
    return found


def fields(message: Any) -> dict[str, tuple]:
    """Field name -> number, type, label, type name, oneof, packing."""
    oneofs = [oneof.name for oneof in message.oneof_decl]
    return {
        f.name: (
            f.number,
            f.type,
            f.label,
            f.type_name,
            oneofs[f.oneof_index] if f.HasField("oneof_index") else None,
            f.proto3_optional,
            f.options.packed if f.options.HasField("packed") else None,
        )
        for f in message.field
    }


@pytest.mark.parametrize(("ours", "theirs"), FILES)
def test_messages_equal_tritonclients(ours: Any, theirs: Any) -> None:
    mine, other = messages(as_proto(ours)), messages(as_proto(theirs))
    assert mine.keys() == other.keys()
    assert len(mine) > 40
    for name in other:
        assert fields(mine[name]) == fields(other[name]), name
        assert enums(mine[name]) == enums(other[name]), name
        assert mine[name].options.map_entry == other[name].options.map_entry, name


@pytest.mark.parametrize(("ours", "theirs"), FILES)
def test_files_and_enums_equal_tritonclients(ours: Any, theirs: Any) -> None:
    mine, other = as_proto(ours), as_proto(theirs)
    assert (mine.name, mine.package, mine.syntax, mine.dependency) == (other.name, other.package, other.syntax, other.dependency)
    assert enums(mine) == enums(other)


def test_service_equals_tritonclients() -> None:
    def methods(module: Any) -> dict[str, tuple]:
        (service,) = as_proto(module).service
        assert service.name == "GRPCInferenceService"
        return {m.name: (m.input_type, m.output_type, m.client_streaming, m.server_streaming) for m in service.method}

    assert methods(pb) == methods(triton_pb)
    assert len(methods(pb)) == 20


def test_our_files_are_on_our_pool_only() -> None:
    assert POOL.FindFileByName("grpc_service.proto") is pb.DESCRIPTOR
    assert pb.DESCRIPTOR.pool is not triton_pb.DESCRIPTOR.pool


def test_bytes_of_one_side_are_read_by_the_other() -> None:
    ours = pb.ModelInferRequest(model_name="m", model_version="1", id="7", raw_input_contents=[b"\x01\x00\x00\x00x", b"\x01"])
    ours.inputs.add(name="text_input", datatype="BYTES", shape=[1]).parameters["p"].bool_param = True
    ours.inputs.add(name="stream", datatype="BOOL", shape=[1])
    ours.inputs.add(name="typed", datatype="INT64", shape=[2]).contents.int64_contents.extend([-1, 2**62])
    values = {"int64_param": -5, "string_param": "é", "double_param": 0.5, "uint64_param": 2**63, "bool_param": False}
    for key, value in values.items():
        setattr(ours.parameters[key], key, value)
    theirs = triton_pb.ModelInferRequest.FromString(ours.SerializeToString())
    assert str(theirs) == str(ours)
    assert pb.ModelInferRequest.FromString(theirs.SerializeToString()) == ours


def test_a_config_survives_both_directions() -> None:
    theirs = triton_mc.ModelConfig(name="m", backend="vllm", version_policy={"specific": {"versions": [1, 3]}})
    theirs.parameters["a"].string_value = "b"
    theirs.instance_group.add(kind=triton_mc.ModelInstanceGroup.KIND_MODEL, count=1)
    ours = mc.ModelConfig.FromString(theirs.SerializeToString())
    assert ours.instance_group[0].kind == mc.ModelInstanceGroup.KIND_MODEL
    assert triton_mc.ModelConfig.FromString(ours.SerializeToString()) == theirs
