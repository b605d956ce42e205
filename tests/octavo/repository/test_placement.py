"""Instance groups -> devices."""

import pytest

from octavo.errors import LoadFailed
from octavo.repository.config_pbtxt import complete_config, parse_config
from octavo.repository.placement import choose_device

GPU_1 = "instance_group { kind: KIND_GPU gpus: 1 }"
PINNED = 'parameters { key: "GPU_DEVICE_IDS" value { string_value: "%s" } }'


def choose(text: str, wanted: str = "auto") -> str:
    return choose_device(complete_config(parse_config(text, "m"), "m"), wanted)


@pytest.mark.parametrize(
    ("text", "wanted", "device"),
    [
        ("", "auto", "auto"),
        ("", "cpu", "cpu"),
        ("", "cuda:1", "cuda:1"),
        ("instance_group { kind: KIND_AUTO }", "auto", "auto"),
        ("instance_group { kind: KIND_MODEL count: 1 }", "cuda", "cuda"),
        ("instance_group { kind: KIND_CPU }", "auto", "cpu"),
        ("instance_group { kind: KIND_CPU }", "cpu", "cpu"),
        ("instance_group { kind: KIND_GPU }", "auto", "cuda"),
        ("instance_group { kind: KIND_GPU }", "cuda:2", "cuda:2"),
        (GPU_1, "auto", "cuda:1"),
        (GPU_1, "cuda", "cuda:1"),
        (GPU_1, "cuda:1", "cuda:1"),
        (PINNED % " 3 ", "auto", "cuda:3"),
        (PINNED % "", "auto", "auto"),
    ],
)
def test_devices(text: str, wanted: str, device: str) -> None:
    assert choose(text, wanted) == device


@pytest.mark.parametrize(
    ("text", "wanted", "says"),
    [
        ("instance_group { count: 2 }", "auto", "has count 2; a model has one instance"),
        ("instance_group { count: -1 }", "auto", "has count -1"),
        ("instance_group { } instance_group { }", "auto", "has 2 instance groups"),
        ("instance_group { kind: KIND_GPU gpus: [0, 1] }", "auto", "asks for 2 GPUs; a model runs on one"),
        ("instance_group { kind: KIND_GPU gpus: -1 }", "auto", "names a GPU below 0"),
        ("instance_group { kind: KIND_CPU gpus: 0 }", "auto", "is KIND_CPU and names GPUs"),
        ("instance_group { kind: KIND_CPU }", "cuda", "on 'cpu' by its instance group and on 'cuda' by model.json"),
        ("instance_group { kind: KIND_GPU }", "cpu", "on 'cuda' by its instance group and on 'cpu' by model.json"),
        (GPU_1, "cuda:0", "on 'cuda:1' by its instance group and on 'cuda:0' by model.json"),
        ('instance_group { profile: "p" }', "auto", "sets profile"),
        ('instance_group { host_policy: "p" }', "auto", "sets host_policy"),
        (PINNED % "0,1", "auto", "asks for 2 GPUs"),
        (PINNED % ("9" * 5000), "auto", "must be a list of numbers"),
        (PINNED % "first", "auto", "GPU_DEVICE_IDS of model 'm' must be a list of numbers"),
    ],
)
def test_refusals(text: str, wanted: str, says: str) -> None:
    with pytest.raises(LoadFailed, match=says):
        choose(text, wanted)
