"""Many requests at once: output tokens per second over the whole run, prefill included."""

from statistics import median

from octavo.bench.engine import InProcessEngine
from octavo.bench.peers import Transformers
from octavo.bench.prompts import random_prompts
from octavo.bench.report import Row


def run(
    engine: InProcessEngine, peer: Transformers | None, requests: int, input_len: int, output_len: int, rounds: int
) -> list[Row]:
    """Measure in ``rounds`` rounds, ours and the peer's static batch in turn, and give the medians."""
    vocab = engine.core.info.vocab_size
    ours, theirs = [], []
    engine.generate(random_prompts(requests, input_len, vocab, seed=1), 4)
    for number in range(rounds):
        prompts = random_prompts(requests, input_len, vocab, seed=100 + number)
        ours.append(requests * output_len / engine.generate(prompts, output_len).seconds)
        if peer is not None:
            theirs.append(requests * output_len / peer.generate(prompts, output_len).total)
    what = f"{requests} at once, {input_len} in, {output_len} out: total"
    return [Row(what, median(ours), "tok/s", median(theirs) if theirs else None, ">= 2.5 x")]
