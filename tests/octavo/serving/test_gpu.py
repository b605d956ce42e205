"""The demo model on a CUDA device, asked over gRPC: what a client gets is what the CPU in float32 would have said, by regret."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from server import running
from tiny import write_model

from octavo.text.tokenizer import load_tokenizer

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

MODEL = "demo"
NEW_TOKENS = 100
PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):\n",
    "Once upon a time, in a village by the sea,",
    "Die Hauptstadt von Deutschland ist",
    "To make a good cup of tea, first",
    "1, 1, 2, 3, 5, 8,",
    "The three laws of motion say that",
    "SELECT name, COUNT(*) FROM",
]


def tensor(name: str, value: object, kind: str) -> triton.InferInput:
    made = triton.InferInput(name, [1], kind)
    made.set_data_from_numpy(np.array([value], dtype=object if kind == "BYTES" else bool))
    return made


def ask_all(client: triton.InferenceServerClient) -> tuple[dict[str, str], dict[str, list[int]]]:
    """The texts and the token ids that the server streams for all prompts at once, by request id."""
    texts, ids, errors = {}, {}, []

    def take(result: triton.InferResult | None, error: Exception | None) -> None:
        if error is not None:
            errors.append(error)
            return
        name = result.get_response().id
        texts[name] = texts.get(name, "") + result.as_numpy("text_output")[0].decode()
        entries = json.loads(result.as_numpy("logprobs")[0]) or []
        ids.setdefault(name, []).extend(int(next(iter(entry))) for entry in entries)

    sampling = json.dumps({"temperature": 0, "max_tokens": NEW_TOKENS, "ignore_eos": True, "logprobs": 0})
    client.start_stream(take)
    for at, prompt in enumerate(PROMPTS):
        inputs = [tensor("text_input", prompt, "BYTES"), tensor("sampling_parameters", sampling, "BYTES")]
        inputs += [tensor("stream", True, "BOOL"), tensor("return_logprobs", True, "BOOL")]
        client.async_stream_infer(MODEL, inputs, request_id=str(at))
    client.stop_stream()
    assert not errors
    return texts, ids


def test_streamed_answers_of_a_gpu_regret_little(tmp_path: Path, demo_gguf: Path, regrets: Callable) -> None:
    write_model(tmp_path, MODEL, demo_gguf, device="cuda", dtype="bfloat16")
    with running(tmp_path, log=tmp_path / "server.log") as server, server.client() as client:
        texts, ids = ask_all(client)
        server.wait_until_free()
        assert "cuda" in (tmp_path / "server.log").read_text()
    tokenizer = load_tokenizer(demo_gguf)
    answers = [ids[str(at)] for at in range(len(PROMPTS))]
    assert [len(answer) for answer in answers] == [NEW_TOKENS] * len(PROMPTS)
    assert "Paris" in texts["0"]
    regret = regrets([tokenizer.encode(prompt) for prompt in PROMPTS], answers)
    print(f"\n{texts['0']!r}\nmean regret {regret.mean():.4f} nat, p99 {np.quantile(regret, 0.99):.4f}")
    assert regret.mean() <= 0.06
    assert np.quantile(regret, 0.99) <= 0.20
