"""One engine in this process, without sockets: requests in, per-token times out. ``latency`` and ``throughput`` use it."""

import time
from dataclasses import dataclass, field

from octavo.config import EngineConfig
from octavo.engine.core import EngineCore
from octavo.engine.messages import EngineRequest, Submit
from octavo.engine.process import load_runner
from octavo.sampling import SamplingParams

_CLIENT = b"bench"


@dataclass
class Trace:
    """When the tokens of one request came, in seconds since all of the run's requests were submitted."""

    token_times: list[float] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    num_cached: int = 0

    @property
    def decode_rate(self) -> float:
        """Tokens per second from the first token to the last."""
        return (len(self.token_times) - 1) / (self.token_times[-1] - self.token_times[0])


class InProcessEngine:
    """The real core, scheduler and runner, stepped by hand."""

    def __init__(self, config: EngineConfig) -> None:
        """Load the model that ``config`` names."""
        self.core = EngineCore(config, load_runner(config))
        self._next_id = 0

    def generate(self, prompts: list[list[int]], new_tokens: int) -> list[Trace]:
        """Run all prompts at once, greedy, exactly ``new_tokens`` each. ``RuntimeError`` if the engine refuses one."""
        sampling = SamplingParams(temperature=0, max_tokens=new_tokens, ignore_eos=True)
        requests = [EngineRequest(self._next_id + i, prompt, sampling) for i, prompt in enumerate(prompts)]
        self._next_id += len(prompts)
        traces = {request.id: Trace() for request in requests}
        start = time.perf_counter()
        self.core.handle(_CLIENT, Submit(requests))
        while not self.core.scheduler.idle:
            outputs = self.core.step().get(_CLIENT, [])
            now = time.perf_counter() - start
            for output in outputs:
                if output.error is not None:
                    raise RuntimeError(output.error.text)
                trace = traces[output.id]
                trace.token_times += [now] * len(output.token_ids)
                trace.token_ids += output.token_ids
                trace.num_cached = output.num_cached_tokens or trace.num_cached
        return list(traces.values())
