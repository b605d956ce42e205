"""Whether the new engine of a model fits beside the old one."""

import pytest

from octavo.config import EngineConfig, WeightsFormat
from octavo.engine.messages import EngineInfo
from octavo.serving.budget import Tenant, fits_beside

GPU = EngineInfo(64, 256, 16, 4, "float32", [], weights_bytes=100, max_logprobs=0, device="cuda:0", device_bytes=1000)
CPU = EngineInfo(64, 256, 16, 4, "float32", [], weights_bytes=100, max_logprobs=0)


def config(**settings: object) -> EngineConfig:
    settings = {"device": "auto", **settings}
    return EngineConfig(name="m", version=1, weights="", weights_format=WeightsFormat.DUMMY, tokenizer="", **settings)


def tenant(**settings: object) -> Tenant:
    return Tenant(config(**settings), GPU)


@pytest.mark.parametrize(
    ("fresh", "replaced", "others", "fits"),
    [
        (config(), tenant(), [], False),
        (config(gpu_memory_utilization=0.5), tenant(gpu_memory_utilization=0.5), [], True),
        (config(gpu_memory_utilization=0.4), tenant(gpu_memory_utilization=0.4), [tenant(gpu_memory_utilization=0.4)], False),
        (config(kv_cache_memory_bytes=400), tenant(kv_cache_memory_bytes=400), [], True),
        (config(kv_cache_memory_bytes=401), tenant(kv_cache_memory_bytes=400), [], False),
        (config(device="cuda:1"), tenant(), [], True),
        (config(), Tenant(config(), CPU), [], True),
    ],
)
def test_what_fits_beside_what(fresh: EngineConfig, replaced: Tenant, others: list[Tenant], fits: bool) -> None:
    assert fits_beside([fresh], replaced, [replaced, *others]) is fits
