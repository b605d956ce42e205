"""The KV cache's size: what fits, what is refused and in which words."""

import pytest
import torch

from octavo.config import EngineConfig, WeightsFormat
from octavo.engine.step import KVSpec
from octavo.errors import LoadFailed
from octavo.runtime.memory import GPU_SLACK_BYTES, GpuMemory, allocate_pool, cpu_budget, gpu_budget, plan_pages

SPEC = KVSpec(page_size=16, num_layers=2, num_kv_heads=3, head_dim=8, dtype_bytes=4)
GIB = 2**30


def config(**settings: object) -> EngineConfig:
    return EngineConfig(name="m", version=1, weights="", weights_format=WeightsFormat.DUMMY, tokenizer="", **settings)


def test_a_page_holds_keys_and_values_of_every_layer() -> None:
    assert SPEC.bytes_per_page == 16 * 2 * 2 * 3 * 8 * 4


def test_a_cpu_takes_512_mib_or_what_all_rows_need_if_that_is_less() -> None:
    assert cpu_budget(config(), SPEC, 10**6) == 512 * 2**20
    assert cpu_budget(config(max_num_seqs=3), SPEC, 33) == 3 * 3 * SPEC.bytes_per_page
    assert cpu_budget(config(kv_cache_memory_bytes=GIB), SPEC, 33) == GIB


def test_a_gpu_takes_its_share_less_what_the_model_took() -> None:
    alone = GpuMemory(total=100 * GIB, free_before=99 * GIB, free_after=79 * GIB)
    assert gpu_budget(config(gpu_memory_utilization=0.9), alone) == 70 * GIB - GPU_SLACK_BYTES
    assert gpu_budget(config(kv_cache_memory_bytes=GIB), alone) == GIB


def test_what_others_hold_on_a_gpu_limits_a_share_only_when_it_is_in_the_way() -> None:
    beside = GpuMemory(total=100 * GIB, free_before=60 * GIB, free_after=50 * GIB)
    assert gpu_budget(config(gpu_memory_utilization=0.4), beside) == 30 * GIB - GPU_SLACK_BYTES
    assert gpu_budget(config(gpu_memory_utilization=0.9), beside) == 50 * GIB - GPU_SLACK_BYTES


def test_what_others_give_back_meanwhile_is_not_granted_too() -> None:
    emptied = GpuMemory(total=100 * GIB, free_before=40 * GIB, free_after=95 * GIB)
    assert gpu_budget(config(gpu_memory_utilization=0.5), emptied) == 50 * GIB - GPU_SLACK_BYTES


def test_a_wish_that_exceeds_what_is_free_is_refused_with_the_figures() -> None:
    full = GpuMemory(total=100 * GIB, free_before=60 * GIB, free_after=GIB + GPU_SLACK_BYTES)
    assert gpu_budget(config(kv_cache_memory_bytes=GIB), full) == GIB
    with pytest.raises(LoadFailed) as refusal:
        gpu_budget(config(kv_cache_memory_bytes=2 * GIB), full)
    assert str(refusal.value) == (
        "kv_cache_memory_bytes asks for 2048.0 MiB, but once the model is loaded only 1024.0 MiB "
        "of the GPU's 102400.0 MiB are free."
    )


def test_pages_are_whole_and_one_longest_request_must_fit() -> None:
    three = 3 * SPEC.bytes_per_page
    assert plan_pages(three, SPEC, 48, "kv_cache_memory_bytes") == 3
    assert plan_pages(three + SPEC.bytes_per_page - 1, SPEC, 48, "kv_cache_memory_bytes") == 3
    with pytest.raises(LoadFailed) as refusal:
        plan_pages(three, SPEC, 49, "kv_cache_memory_bytes")
    assert str(refusal.value) == (
        "The KV cache may take 0.0 MiB, which holds 48 tokens, but one request of max_model_len 49 needs 0.0 MiB; "
        "raise kv_cache_memory_bytes or lower max_model_len."
    )


def test_a_budget_below_nothing_is_told_as_nothing() -> None:
    with pytest.raises(
        LoadFailed, match=r"may take 0\.0 MiB, which holds 0 tokens, .*raise gpu_memory_utilization or lower max_model_len"
    ):
        plan_pages(-GIB, SPEC, 100, "gpu_memory_utilization")


def test_the_pool_is_zero_and_a_layer_of_it_is_a_cache_that_can_be_written() -> None:
    pool = allocate_pool(5, SPEC, torch.float32, torch.device("cpu"))
    assert pool.shape == (5, 2, 2, 3, 16, 8)
    assert not pool.any()
    layer = pool[:, 1]
    layer[4, 1, 2, 15] = 7.0
    assert pool[4, 1, 1, 2, 15].tolist() == [7.0] * 8
    assert pool.sum() == 56.0
