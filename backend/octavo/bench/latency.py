"""One request at a time: decode rate, time to first token, and what a shared prefix saves."""

from statistics import median

from octavo.bench.engine import InProcessEngine
from octavo.bench.peers import Transformers
from octavo.bench.prompts import random_prompts
from octavo.bench.report import Row

PREFIX_TOKENS = 512
_TAIL_TOKENS = 8


def run(engine: InProcessEngine, peer: Transformers | None, input_len: int, output_len: int, rounds: int) -> list[Row]:
    """Measure in ``rounds`` rounds, ours and the peer's in turn, and give the medians."""
    vocab = engine.core.info.vocab_size
    ours, theirs, firsts = [], [], []
    engine.generate(random_prompts(1, input_len, vocab, seed=1), 8)
    for number in range(rounds):
        (prompt,) = random_prompts(1, input_len, vocab, seed=100 + number)
        recording = engine.generate([prompt], output_len)
        first = float(recording.first_tokens[0])
        ours.append((output_len - 1) / (recording.seconds - first))
        firsts.append(first)
        if peer is not None:
            timing = peer.generate([prompt], output_len)
            theirs.append((output_len - 1) / (timing.total - timing.first))
    first, second = _prefix_times(engine, rounds)
    return [
        Row("one request, decode", median(ours), "tok/s", median(theirs) if theirs else None, ">= 1.3 x"),
        Row(f"time to first token, {input_len} tokens in", median(firsts) * 1e3, "ms"),
        Row(f"time to first token, {PREFIX_TOKENS + _TAIL_TOKENS} tokens in", first * 1e3, "ms"),
        Row("the same with its first 512 tokens cached", second * 1e3, "ms"),
        Row("cached over first", second / first, "", None, "<= 0.25"),
    ]


def _prefix_times(engine: InProcessEngine, rounds: int) -> tuple[float, float]:
    """Median seconds to the first token for a fresh prompt, and for another one that shares its first 512 tokens."""
    vocab = engine.core.info.vocab_size
    firsts, seconds = [], []
    for number in range(rounds):
        (prefix,) = random_prompts(1, PREFIX_TOKENS, vocab, seed=1000 + number)
        tails = random_prompts(2, _TAIL_TOKENS, vocab, seed=2000 + number)
        firsts.append(_first_token(engine, prefix + tails[0], 0))
        seconds.append(_first_token(engine, prefix + tails[1], PREFIX_TOKENS))
    return median(firsts), median(seconds)


def _first_token(engine: InProcessEngine, prompt: list[int], due: int) -> float:
    """Seconds to the first token of a prompt of which ``due`` tokens are cached."""
    before = engine.cached_tokens
    first = engine.generate([prompt], 1).seconds
    assert engine.cached_tokens - before == due
    return first
