"""Five minutes of random arrivals, lengths, options and cancels on a CUDA device: no page and no memory is lost on the way."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from octavo.config import EngineConfig, WeightsFormat
from octavo.engine.core import EngineCore
from octavo.engine.messages import Abort, EngineRequest, Submit
from octavo.runtime.runner import ModelRunner
from octavo.sampling import SamplingParams

SECONDS, VOCAB, MOST_OPEN = 300, 32_000, 400
CLIENTS = (b"1.1", b"2.1", b"3.1")
OPTIONS = [
    {"temperature": 0},
    {"temperature": 0.8, "top_p": 0.95, "top_k": 50},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 1.0, "repetition_penalty": 1.2, "frequency_penalty": 0.1},
    {"temperature": 0, "logprobs": 3, "logit_bias": {7: 3.0}},
    {"temperature": 0, "prompt_logprobs": 1},
]
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": 512,
    "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64,
    "max_position_embeddings": 8192, "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16", "eos_token_id": 2,
}  # fmt: skip


@pytest.mark.gpu
@pytest.mark.long
@pytest.mark.timeout(3 * SECONDS)
def test_nothing_is_lost_in_five_minutes(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    config = EngineConfig(
        name="soak", version=1, weights=str(tmp_path), weights_format=WeightsFormat.DUMMY, tokenizer="", device="cuda",
        max_num_seqs=256, max_num_batched_tokens=2048, kv_cache_memory_bytes=2**28, max_queue_size=10_000,
    )  # fmt: skip
    core = EngineCore(config, ModelRunner(config))
    random = np.random.default_rng(11)
    opened: set[tuple[bytes, int]] = set()
    readings: list[tuple[int, int]] = []
    number = finished = cancelled = 0
    start = time.monotonic()
    while (now := time.monotonic() - start) < SECONDS:
        if len(opened) < MOST_OPEN and random.random() < 0.3:
            number += 1
            client, length = CLIENTS[random.integers(3)], int(min(4000, 1 + random.exponential(300)))
            options = OPTIONS[random.integers(len(OPTIONS))]
            sampling = SamplingParams(max_tokens=int(1 + random.exponential(150)), seed=number, **options)
            core.handle(client, Submit([EngineRequest(number, random.integers(10, VOCAB, length).tolist(), sampling)]))
            opened.add((client, number))
        if opened and random.random() < 0.02:
            client, request_id = sorted(opened)[random.integers(len(opened))]
            core.handle(client, Abort([request_id]))
            opened.discard((client, request_id))
            cancelled += 1
        for client, frame in core.step().items():
            for output in frame:
                assert output.error is None, output.error
                assert all(0 <= token < VOCAB for token in output.token_ids)
                if output.finish is not None:
                    opened.discard((client, output.id))
                    finished += 1
        if now > 30 * (1 + len(readings)):
            torch.cuda.synchronize()
            core.scheduler.check_integrity()
            readings.append((torch.cuda.memory_allocated(), torch.cuda.mem_get_info()[0]))
    for client, request_id in opened:
        core.handle(client, Abort([request_id]))
    core.step()
    core.scheduler.check_integrity()
    assert core.scheduler.idle and core.scheduler.pool.used == 0
    stats = core.scheduler.stats()
    print(f"\n{finished} finished, {cancelled} cancelled, {stats.preemptions} preemptions, {stats.steps} steps; {readings}")
    assert finished > 1000 and cancelled > 50 and stats.preemptions > 0
    # Steps of a few hundred shapes settle what the allocator keeps; from the second minute on nothing may grow.
    settled = readings[3:]
    assert max(allocated for allocated, _ in settled) <= settled[0][0] + 2**25
    assert min(free for _, free in settled) >= settled[0][1] - 2**27
