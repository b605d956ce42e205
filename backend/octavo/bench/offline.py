"""One engine, many phases: the rates of each beside what the device can do. Knows no peer and prints nothing."""

import gc
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from msgspec.structs import asdict, replace

from octavo.bench import itl
from octavo.bench.ceilings import measure
from octavo.bench.engine import InProcessEngine
from octavo.bench.machine import describe
from octavo.bench.phases import ITL, Phase, Plan
from octavo.bench.prompts import random_prompts
from octavo.bench.results import Measurement, PhaseResult, Rates
from octavo.bench.startup import timed_start
from octavo.bench.work import Ceilings, Limits, Work
from octavo.config import EngineConfig, WeightsFormat
from octavo.models.gguf import config_of
from octavo.models.gguf_file import GgufFile
from octavo.models.hf_config import read_config, shape_of
from octavo.models.linear import precision_for
from octavo.models.loader import DTYPES
from octavo.models.shape import ModelShape
from octavo.repository.settings import parse_settings
from octavo.repository.sources import Source, detect
from octavo.repository.spec import engine_config
from octavo.runtime.device import resolve_device
from octavo.sampling import SamplingParams

# As the peers are given: no longer context than this, and room for every request of a phase to wait.
MAX_MODEL_LEN = 16384
QUEUE = 2**16
_FIRST_INPUT = 128
_WARM_REQUESTS, _WARM_TOKENS = 8, 4


def resolve_model(model: Path, arguments: Mapping[str, object]) -> tuple[EngineConfig, ModelShape]:
    """The settings to measure ``model`` with, a snapshot's folder or a .gguf file, and its shape. Raises ``LoadFailed``.

    ``arguments`` are engine arguments as in a ``model.json``.
    """
    peers_too = {"model": str(model), "enable_prefix_caching": False, "max_queue_size": QUEUE}
    settings = parse_settings(json.dumps(peers_too | dict(arguments)), model.name)
    weights, weights_format = detect(model, settings.load_format, model.name)
    raw = config_of(GgufFile(weights)) if weights_format is WeightsFormat.GGUF else read_config(weights)
    shape = shape_of(raw | settings.hf_overrides)
    config = engine_config(model.name, 1, settings, Source(weights, weights_format, weights), settings.device)
    return replace(config, max_model_len=config.max_model_len or min(MAX_MODEL_LEN, shape.max_len)), shape


def check_fits(plan: Plan, max_model_len: int) -> None:
    """Raise ``ValueError`` for a phase whose requests are longer than that."""
    lengths = {phase.name: phase.input_len + phase.output_len for phase in plan.phases}
    if plan.itl:
        lengths[ITL] = itl.LONG_INPUT + 1
    for name, length in lengths.items():
        if length > max_model_len:
            raise ValueError(f"Phase {name} has requests of {length} tokens, but the model takes at most {max_model_len}.")


def run(config: EngineConfig, shape: ModelShape, plan: Plan) -> Iterator[Measurement]:
    """Load, then run the phases of ``plan``; what there is so far after the start, each phase and the gaps."""
    vocab = shape.vocab_size
    first_input = min(_FIRST_INPUT, (config.max_model_len or shape.max_len) - 1)
    prompt = random_prompts(1, first_input, vocab, seed=0)
    engine, start = timed_start(lambda: InProcessEngine(config), lambda engine: engine.generate(prompt, 1))
    gc.collect()
    gc.freeze()  # as an engine process does
    while engine.runner.warm_up():  # likewise, while it waits for its first requests
        pass
    device = resolve_device(config.device)
    precision = precision_for(DTYPES[engine.core.info.dtype], device)
    ceilings = measure(device, precision.activations)
    work = Work(shape, precision.weights.itemsize, precision.activations.itemsize)
    limits = Limits(min(config.max_num_seqs, config.max_num_batched_tokens), config.max_num_batched_tokens)
    results: list[PhaseResult] = []

    def measurement(gaps: itl.ItlResult | None = None) -> Measurement:
        return Measurement(
            machine=describe(device),
            settings=_settings(config, engine),
            ceilings={"copy_gb_s": ceilings.copy / 1e9, "matmul_tflop_s": ceilings.matmul / 1e12},
            start=start,
            phases=results,
            itl=gaps,
        )

    yield measurement()
    for number, phase in enumerate(plan.phases):
        warm_up(engine, phase, vocab, limits)
        results.append(
            _run(engine, phase, random_prompts(phase.requests, phase.input_len, vocab, number + 1), work, ceilings, limits)
        )
        yield measurement()
    if plan.itl:
        yield measurement(itl.run(engine, vocab, engine.core.info.max_model_len))


def warm_up(engine: InProcessEngine, phase: Phase, vocab: int, limits: Limits) -> None:
    """Enough requests of the phase to fill two steps, so that nothing is met for the first time."""
    count = min(phase.requests, max(_WARM_REQUESTS, 2 * limits.tokens // phase.input_len + 1))
    few = random_prompts(count, phase.input_len, vocab, seed=1001)
    engine.generate(few, min(_WARM_TOKENS, phase.output_len), _sampling(phase))


def _run(
    engine: InProcessEngine, phase: Phase, prompts: list[list[int]], work: Work, ceilings: Ceilings, limits: Limits
) -> PhaseResult:
    before, waited = engine.num_steps, engine.runner.waited
    recording = engine.generate(prompts, phase.output_len, _sampling(phase))
    steps, seconds = engine.num_steps - before, recording.seconds
    if len(recording.times) != phase.requests * phase.output_len:
        raise RuntimeError(f"Phase {phase.name} made {len(recording.times)} tokens; {phase.requests * phase.output_len} were due.")

    def rates(steps: int, seconds: float, read: float, flops: float) -> Rates:
        gb_s, tflop_s = read / seconds / 1e9, flops / seconds / 1e12
        return Rates(steps, seconds, gb_s, gb_s * 1e9 / ceilings.copy, tflop_s, tflop_s * 1e12 / ceilings.matmul)

    decode = None
    steady = recording.steady(phase.input_len) if phase.requests <= limits.rows else None
    if steady is not None:
        read = work.steady_bytes(steady.steps, steady.context_tokens)
        decode = rates(steady.steps, steady.seconds, read, work.decode_flops(steady.tokens, steady.context_tokens))
    return PhaseResult(
        phase=phase.name,
        n=phase.requests,
        isl=phase.input_len,
        osl=phase.output_len,
        seconds=seconds,
        output_tok_s=phase.requests * phase.output_len / seconds,
        input_tok_s=phase.requests * phase.input_len / seconds,
        ms_per_token=seconds / phase.output_len * 1e3,
        ttft_p50=float(np.median(recording.first_tokens)),
        step_p50_ms=float(np.median(recording.step_seconds)) * 1e3,
        step_max_ms=float(recording.step_seconds.max()) * 1e3,
        host_us=(seconds - engine.runner.waited + waited) / steps * 1e6,
        floor=work.floor(phase, ceilings, limits),
        whole=rates(steps, seconds, work.bytes(phase, steps), work.flops(phase)),
        decode=decode,
    )


def _sampling(phase: Phase) -> SamplingParams:
    return SamplingParams(**phase.sampling)  # type: ignore[arg-type]


def _settings(config: EngineConfig, engine: InProcessEngine) -> dict[str, object]:
    """Everything that the engine was told, and what it made of it; no paths."""
    info = engine.core.info
    told = {name: value for name, value in asdict(config).items() if name not in ("weights", "tokenizer", "version")}
    return told | {"dtype": info.dtype, "block_size": info.page_size, "cache_tokens": info.num_pages * info.page_size}
