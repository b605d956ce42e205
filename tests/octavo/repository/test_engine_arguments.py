"""The one table of engine arguments: every row does what it says."""

import json
import logging
import re

import pytest

from octavo.errors import LoadFailed
from octavo.repository.engine_arguments import ENGINE_ARGUMENTS, Treatment, honoured
from octavo.repository.settings import ModelSettings, parse_settings


def named(treatment: Treatment) -> list[str]:
    return [name for name, row in ENGINE_ARGUMENTS.items() if row.treatment is treatment]


def test_the_honoured_ones_are_the_fields_of_the_settings() -> None:
    assert set(named(Treatment.HONOURED)) == set(ModelSettings.model_fields)


def test_the_table_knows_the_arguments_that_users_have() -> None:
    # Those of vllm_backend's samples and documentation, and of AsyncEngineArgs in vLLM 0.26 by kind.
    users = {
        "model", "gpu_memory_utilization", "enforce_eager", "tensor_parallel_size", "pipeline_parallel_size",
        "block_size", "enable_lora", "max_lora_rank", "disable_log_stats", "disable_log_requests", "swap_space",
        "tokenizer", "trust_remote_code", "dtype", "max_model_len", "quantization", "kv_cache_dtype", "seed",
        "speculative_config", "distributed_executor_backend", "enable_prefix_caching", "enable_chunked_prefill",
        "max_num_seqs", "max_num_batched_tokens", "load_format", "download_dir", "revision", "hf_overrides",
        "compilation_config", "generation_config", "limit_mm_per_prompt", "served_model_name", "cpu_offload_gb",
        "kv_transfer_config", "structured_outputs_config", "logits_processors", "async_scheduling",
        "attention_backend", "enable_expert_parallel",
    }  # fmt: skip
    assert not users - ENGINE_ARGUMENTS.keys()


@pytest.mark.parametrize("name", named(Treatment.NO_EFFECT))
def test_no_effect_is_accepted_and_said(name: str) -> None:
    kept, (note,), problems = honoured({name: "anything"})
    assert kept == {} and not problems
    assert f"'{name}'" in note
    assert note.endswith(f"{ENGINE_ARGUMENTS[name].reason}.")


@pytest.mark.parametrize("name", named(Treatment.REFUSED))
def test_refused_by_name(name: str) -> None:
    (problem,) = honoured({name: "something-else"}).problems
    assert re.search(f"'{name}', which is not supported: .*{ENGINE_ARGUMENTS[name].reason}", problem)


@pytest.mark.parametrize("name", named(Treatment.REFUSED))
def test_refused_ones_may_ask_for_nothing(name: str) -> None:
    for value in (None, [], {}, "", *ENGINE_ARGUMENTS[name].harmless):
        assert honoured({name: value}) == ({}, [], [])


@pytest.mark.parametrize(
    ("name", "value"),
    [("tensor_parallel_size", "1"), ("enable_lora", "false"), ("trust_remote_code", "False"), ("cpu_offload_gb", 0.0)],
)
def test_strings_stand_for_numbers_and_booleans(name: str, value: str) -> None:
    assert honoured({name: value}) == ({}, [], [])


@pytest.mark.parametrize(("name", "value"), [("tensor_parallel_size", 2), ("enable_lora", "true"), ("trust_remote_code", True)])
def test_capabilities_that_are_missing_are_refused(name: str, value: object) -> None:
    (problem,) = honoured({name: value}).problems
    assert name in problem


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("max_model_length", "max_model_len"),
        ("gpu_memory_utilisation", "gpu_memory_utilization"),
        ("enforce-eager", "enforce_eager"),
    ],
)
def test_an_unknown_key_names_the_nearest(name: str, nearest: str) -> None:
    (problem,) = honoured({name: 1}).problems
    assert re.search(f"key '{name}' .* the nearest known one is '{nearest}'", problem)


def test_an_unknown_key_without_a_neighbour() -> None:
    assert "no known one is like it" in honoured({"zzzzzzzz": 1}).problems[0]


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(LoadFailed) as refusal:
        parse_settings(json.dumps({"zzzzzzzz": 1, "enable_lora": True, "seed": "x"}), "m")
    assert [problem.split("'")[1] for problem in refusal.value.problems] == ["zzzzzzzz", "enable_lora", "m"]
    assert "'model' is missing; 'seed' should be a valid integer" in str(refusal.value)


def test_keys_without_effect_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        parse_settings(json.dumps({"model": "x", "swap_space": 4}), "m")
    assert "Model 'm': model.json sets 'swap_space', which has no effect: preempted requests are recomputed" in caplog.text
