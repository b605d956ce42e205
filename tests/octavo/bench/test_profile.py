"""The profile of a step: all that is profiled decodes, steps and layers are found in a list of kernels, and costs add up."""

import json

import pytest

from octavo.bench.engine import InProcessEngine
from octavo.bench.profile import STEPS, Kernel, Weights, all_decode, lines_of
from octavo.config import EngineConfig, WeightsFormat
from octavo.engine.scheduler import Scheduler
from octavo.errors import Unsupported

LAYER = [("gemv", 4), ("rope", 1), ("paged_decode", 2), ("gemv", 2), ("gemv", 8), ("gemv", 4)]
STEP = [("embed", 1), *LAYER, *LAYER, *LAYER, ("gemv", 20), ("argmax", 3), ("copy", 1), ("add", 2), ("copy", 1)]
NEW_PAGE = [("index", 6)]
WEIGHTS = Weights({"qkv": 4e3, "out": 2e3, "gate and up": 8e3, "down": 4e3}, 1e3, 40e3)


def kernels(*steps: list[tuple[str, int]]) -> list[Kernel]:
    made, now = [], 0.0
    for name, cost in (kernel for step in steps for kernel in step):
        now += cost
        made.append(Kernel(name, now))
    return made


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([STEP] * STEPS, id="all alike"),
        pytest.param([STEP[9:], *[STEP] * (STEPS - 1)], id="the first cut off"),
        pytest.param([[], *[STEP] * (STEPS - 1)], id="the first lost"),
        pytest.param([NEW_PAGE + STEP if at % 3 == 0 else STEP for at in range(STEPS)], id="new pages in some"),
        pytest.param([NEW_PAGE + STEP if at > STEPS - 3 else STEP for at in range(STEPS)], id="new pages in the last"),
    ],
)
def test_a_step(steps: list[list[tuple[str, int]]]) -> None:
    lines = lines_of(kernels(*steps), 3, WEIGHTS)
    step = [
        (1, "before the layers", 1), (3, "qkv", 4), (3, "layer", 1), (3, "attention", 2), (3, "out", 2), (3, "gate and up", 8),
        (3, "down", 4), (1, "head", 20), (1, "after the layers", 3), (1, "after the layers", 1), (1, "after the layers", 2),
        (1, "after the layers", 1),
    ]  # fmt: skip
    found = [(line.times, line.part, line.microseconds) for line in lines]
    # What follows the last kernel of which a step has one is taken for the beginning of the next step.
    assert found == [(1, "before the layers", 1), *step[:-1]]
    assert [line.gb_s for line in lines] == [None, None, 1, None, 0.5, 1, 1, 1, 2, None, None, None]
    assert sum(line.times * line.microseconds for line in lines) == sum(cost for _, cost in STEP)


def test_most_steps_come_to_a_new_page() -> None:
    lines = lines_of(kernels(*[NEW_PAGE + STEP if at % 4 else STEP for at in range(STEPS)]), 3, WEIGHTS)
    assert sum(line.times * line.microseconds for line in lines) == sum(cost for _, cost in NEW_PAGE + STEP)


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([[(str(at), 1)] for at in range(100)], id="no kernel twice"),
        pytest.param([[("chunk", 1)] * at + STEP for at in range(STEPS)], id="no two steps alike"),
        pytest.param([], id="no kernel"),
    ],
)
def test_kernels_without_order(steps: list[list[tuple[str, int]]]) -> None:
    with pytest.raises(Unsupported, match="do not recur"):
        lines_of(kernels(*steps), 3, WEIGHTS)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> EngineConfig:
    """At most 40 requests at once, 64 tokens a step and 400 pages of 16 tokens."""
    folder = tmp_path_factory.mktemp("tiny")
    shape = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 300, "hidden_size": 16, "intermediate_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5, "torch_dtype": "float32",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(shape))
    return EngineConfig(
        name="tiny", version=1, weights=str(folder), weights_format=WeightsFormat.DUMMY, tokenizer="", device="cpu",
        dtype="float32", max_num_seqs=40, max_num_batched_tokens=64, kv_cache_memory_bytes=400 * 16 * 2 * 16 * 4,
        enable_prefix_caching=False,
    )  # fmt: skip


def test_all_that_is_profiled_decodes(config: EngineConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the first request would long have ended, if it asked for no more than the steps to profile."""
    steps = []
    schedule = Scheduler.schedule
    monkeypatch.setattr(Scheduler, "schedule", lambda *args: (steps.append(schedule(*args)), steps[-1])[1])
    engine = InProcessEngine(config)
    all_decode(engine, 40, 60)
    before = len(steps)
    assert before > STEPS
    for _ in range(STEPS):
        engine.step()
    assert [(step.num_decodes, len(step.rows), len(step.token_ids)) for step in steps[before - 3 :]] == [(40, 40, 0)] * (STEPS + 3)


@pytest.mark.parametrize(("rows", "input_len"), [(41, 10), (2, 250), (40, 150)], ids=["rows", "length", "cache"])
def test_more_than_can_decode_at_once_is_refused(config: EngineConfig, rows: int, input_len: int) -> None:
    with pytest.raises(Unsupported, match=f"{rows} requests do not decode at once for {STEPS} steps"):
        all_decode(InProcessEngine(config), rows, input_len)
