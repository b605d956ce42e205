"""Many requests at once: output tokens per second over the whole run, prefill included."""

from statistics import median

from octavo.bench.engine import InProcessEngine
from octavo.bench.llm import MeasuredLlm
from octavo.bench.peers import Transformers
from octavo.bench.prompts import random_prompts
from octavo.bench.report import Row


def run(
    engine: InProcessEngine,
    peer: Transformers | None,
    llm: MeasuredLlm | None,
    requests: int,
    input_len: int,
    output_len: int,
    rounds: int,
) -> list[Row]:
    """Measure in ``rounds`` rounds, ours, the peer's static batch and ``llm`` in turn, and give the medians."""
    vocab = engine.core.info.vocab_size
    ours, theirs, ratios = [], [], []
    warm = random_prompts(requests, input_len, vocab, seed=1)
    engine.generate(warm, 4)
    if llm is not None:
        llm.seconds(warm, 4)
    for number in range(rounds):
        prompts = random_prompts(requests, input_len, vocab, seed=100 + number)
        ours.append(requests * output_len / engine.generate(prompts, output_len).seconds)
        if peer is not None:
            theirs.append(requests * output_len / peer.generate(prompts, output_len).total)
        if llm is not None:
            ratios.append(requests * output_len / llm.seconds(prompts, output_len) / ours[-1])
    what = f"{requests} at once, {input_len} in, {output_len} out: total"
    rows = [Row(what, median(ours), "tok/s", median(theirs) if theirs else None, ">= 2.5 x")]
    return [*rows, Row("the same through LLM, over that", median(ratios), "", None, ">= 0.97")] if ratios else rows
