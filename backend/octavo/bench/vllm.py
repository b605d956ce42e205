"""``python -m octavo.bench.vllm MODEL OUT.json [PHASE ...]``: ``octavo bench offline`` with vLLM, where that is installed.

Random weights, token ids in and out, no prefix cache, our limits; all else as vLLM would have it, or with ``--tuned`` with CUDA
graphs up to 1024 rows. OUT.json is what ``--peer`` and ``octavo bench compare`` read.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from vllm import LLM, SamplingParams  # type: ignore[import-not-found]
from vllm.sampling_params import RequestOutputKind  # type: ignore[import-not-found]

from octavo.bench import itl
from octavo.bench.phases import ITL, START, Phase, parse_phases
from octavo.bench.prompts import random_prompts
from octavo.bench.startup import process_seconds

_WARM_REQUESTS, _WARM_TOKENS = 8, 4


def main() -> None:
    """Load, measure, and write after each phase."""
    parser = argparse.ArgumentParser(prog="python -m octavo.bench.vllm", description="Measure vLLM for octavo bench compare.")
    parser.add_argument("model", help="a folder with a config.json")
    parser.add_argument("out", type=Path, help="the JSON file to write")
    parser.add_argument("phases", nargs="*", help="names that octavo bench offline knows")
    parser.add_argument("--tuned", action="store_true", help="capture CUDA graphs up to 1024 rows")
    parser.add_argument("--max-num-seqs", type=int, default=512)
    parser.add_argument("--max-num-batched-tokens", type=int, default=8192)
    arguments = parser.parse_args()
    plan = parse_phases(",".join(arguments.phases))
    vocab = json.loads(Path(arguments.model, "config.json").read_bytes())["vocab_size"]
    engine = VllmEngine(_load(arguments))
    engine.generate(random_prompts(1, 128, vocab, seed=0), 1, {"temperature": 0.0})
    rows: list[dict[str, Any]] = []

    def keep(row: dict[str, Any]) -> None:
        rows.append(row)
        print(json.dumps(row), flush=True)
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")

    keep({"phase": START, "seconds": process_seconds()})
    for number, phase in enumerate(plan.phases):
        try:
            keep(_measure(engine, phase, random_prompts(phase.requests, phase.input_len, vocab, number + 1)))
        except Exception as error:  # another's engine: the other phases may still do
            print(f"{phase.name}: {error!r}", flush=True)
    if plan.itl:
        result = itl.run(engine, vocab, engine.max_model_len)
        keep({"phase": ITL, **{name: getattr(result, name) for name in result.__struct_fields__}})


def _load(arguments: argparse.Namespace) -> LLM:
    return LLM(
        model=arguments.model,
        load_format="dummy",
        skip_tokenizer_init=True,
        max_model_len=16384,
        gpu_memory_utilization=0.88,
        max_num_seqs=arguments.max_num_seqs,
        max_num_batched_tokens=arguments.max_num_batched_tokens,
        enable_prefix_caching=False,
        seed=0,
        **({"compilation_config": {"max_cudagraph_capture_size": 1024}} if arguments.tuned else {}),
    )


def _measure(engine: "VllmEngine", phase: Phase, prompts: list[list[int]]) -> dict[str, Any]:
    engine.generate(prompts[:_WARM_REQUESTS], _WARM_TOKENS, phase.sampling)
    seconds, made = engine.generate(prompts, phase.output_len, phase.sampling)
    assert made == phase.requests * phase.output_len
    return {"phase": phase.name, "n": phase.requests, "isl": phase.input_len, "osl": phase.output_len, "seconds": seconds}


class VllmEngine:
    """vLLM's offline engine, whole runs or step by step."""

    max_model_len = 16384

    def __init__(self, llm: LLM) -> None:
        """``llm`` is ready to serve."""
        self._llm = llm
        self._engine = llm.llm_engine
        self._next_id = 0

    def generate(self, prompts: list[list[int]], new_tokens: int, sampling: dict[str, float | int]) -> tuple[float, int]:
        """Seconds for all prompts, and the tokens made."""
        inputs = [{"prompt_token_ids": prompt} for prompt in prompts]
        wishes = SamplingParams(max_tokens=new_tokens, ignore_eos=True, detokenize=False, **sampling)
        start = time.perf_counter()
        outputs = self._llm.generate(inputs, wishes, use_tqdm=False)
        return time.perf_counter() - start, sum(len(output.outputs[0].token_ids) for output in outputs)

    def submit(self, prompts: list[list[int]], new_tokens: int) -> list[int]:
        """See ``itl.Steppable``."""
        ids = list(range(self._next_id, self._next_id + len(prompts)))
        self._next_id += len(prompts)
        for request_id, prompt in zip(ids, prompts, strict=True):
            wishes = SamplingParams(
                max_tokens=new_tokens, ignore_eos=True, detokenize=False, temperature=0.0, output_kind=RequestOutputKind.DELTA
            )
            self._engine.add_request(str(request_id), {"prompt_token_ids": prompt}, wishes)
        return ids

    def step(self) -> list[int]:
        """See ``itl.Steppable``."""
        return [int(output.request_id) for output in self._engine.step() for _ in output.outputs[0].token_ids]

    def cancel(self, ids: list[int]) -> None:
        """See ``itl.Steppable``."""
        self._engine.abort_request([str(request_id) for request_id in ids])


if __name__ == "__main__":
    main()
