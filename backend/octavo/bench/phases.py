"""The loads that an offline measurement runs, by name: how many requests, how long in and out, how sampled. Knows no engine."""

import re
from typing import NamedTuple

START = "start"
ITL = "itl"
_CUSTOM = re.compile(r"([1-9][0-9]*)/([1-9][0-9]*)/([1-9][0-9]*)", re.ASCII)


class Phase(NamedTuple):
    """``requests`` prompts of ``input_len`` tokens, all at once, ``output_len`` new tokens each; greedy unless ``sampled``."""

    name: str
    requests: int
    input_len: int
    output_len: int
    sampled: bool = False

    @property
    def sampling(self) -> dict[str, float | int]:
        """Sampling options under vLLM's names."""
        return {"temperature": 0.8, "top_p": 0.95, "top_k": 50} if self.sampled else {"temperature": 0.0}


NAMED = {
    phase.name: phase
    for phase in (
        Phase("b1", 1, 128, 512),
        Phase("b8", 8, 128, 512),
        Phase("b64", 64, 128, 512),
        Phase("b256", 256, 128, 256),
        Phase("ctx8k_b32", 32, 8192, 256),
        Phase("prefill1k", 256, 1024, 1),
        Phase("prefill8k", 32, 8192, 1),
        Phase("thr_128_128", 2048, 128, 128),
        Phase("samp_128_128", 2048, 128, 128, sampled=True),
        Phase("thr_1k_128", 1024, 1024, 128),
        Phase("thr_1k_1k", 512, 1024, 1024),
    )
}


class Plan(NamedTuple):
    """What one measurement runs, in order; ``itl`` comes last."""

    phases: list[Phase]
    itl: bool


def parse_phases(text: str) -> Plan:
    """The phases of a comma-separated list: names, ``start``, ``itl``, and custom ones as in/out/requests.

    ``start`` stands for the start-up alone, which is always measured. Raises ``ValueError`` for a name that is not known.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    return Plan([_phase(name) for name in names if name not in (START, ITL)], ITL in names)


def _phase(name: str) -> Phase:
    if name in NAMED:
        return NAMED[name]
    match = _CUSTOM.fullmatch(name)
    if match is None:
        raise ValueError(f"'{name}' is no phase; known are {', '.join([START, *NAMED, ITL])}, and in/out/requests as in 128/32/4.")
    input_len, output_len, requests = map(int, match.groups())
    return Phase(name, requests, input_len, output_len)
