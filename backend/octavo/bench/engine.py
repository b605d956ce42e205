"""One engine in this process, without sockets: requests in, the times of their tokens out."""

import time
from typing import NamedTuple

from msgspec.structs import replace

from octavo.bench.recording import Recording
from octavo.config import EngineConfig
from octavo.engine.core import EngineCore, Launched, Runner
from octavo.engine.messages import Abort, EngineRequest, Submit
from octavo.engine.process import load_runner
from octavo.engine.step import Masks, StepInput, StepOutput
from octavo.sampling import SamplingParams

_CLIENT = b"bench"
GREEDY = SamplingParams(temperature=0)


class WaitingRunner:
    """A runner that adds up how long its steps are waited for: what a step takes beside that is the host's own work.

    ``waited``: seconds.
    """

    def __init__(self, runner: Runner) -> None:
        """Launch on ``runner``."""
        self.info = runner.info
        self.runs_ahead = runner.runs_ahead
        self.waited = 0.0
        self._runner = runner

    def warm_up(self) -> bool:
        """See ``Runner``."""
        return self._runner.warm_up()

    def launch(self, step: StepInput) -> "WaitedStep":
        """As the runner does."""
        return WaitedStep(self._runner.launch(step), self)


class WaitedStep(NamedTuple):
    """A step of a ``WaitingRunner``."""

    step: Launched
    runner: WaitingRunner

    def draw(self, masks: Masks) -> None:
        """As the step does."""
        self.step.draw(masks)

    def wait(self) -> StepOutput:
        """As the step does."""
        start = time.perf_counter()
        output = self.step.wait()
        self.runner.waited += time.perf_counter() - start
        return output


class InProcessEngine:
    """The real core, scheduler and runner, stepped by hand."""

    def __init__(self, config: EngineConfig) -> None:
        """Load the model that ``config`` names."""
        self.config = config
        self.runner = WaitingRunner(load_runner(config))
        self.core = EngineCore(config, self.runner)
        self._next_id = 0

    @property
    def cached_tokens(self) -> int:
        """Prompt tokens that were found in the prefix cache so far."""
        return self.core.scheduler.stats().prefix_hits

    @property
    def num_steps(self) -> int:
        """Steps so far."""
        return self.core.scheduler.stats().steps

    def submit(self, prompts: list[list[int]], new_tokens: int | list[int], sampling: SamplingParams = GREEDY) -> list[int]:
        """Send all prompts at once, for exactly ``new_tokens`` each (or one number for each); their ids, ascending by one."""
        counts = [new_tokens] * len(prompts) if isinstance(new_tokens, int) else new_tokens
        wishes = {count: replace(sampling, max_tokens=count, ignore_eos=True) for count in set(counts)}
        ids = range(self._next_id, self._next_id + len(prompts))
        self._next_id += len(prompts)
        requests = [EngineRequest(*each) for each in zip(ids, prompts, map(wishes.__getitem__, counts), strict=True)]
        self.core.handle(_CLIENT, Submit(requests))
        return list(ids)

    def step(self) -> list[int]:
        """One step: the id of the request of every token that it made. ``RuntimeError`` if the engine refused one."""
        frame = self.core.step().get(_CLIENT)
        if frame is None:
            return []
        for output in frame.outputs:
            if output.error is not None:
                raise RuntimeError(output.error.text)
        return [*memoryview(frame.ids).cast("q"), *(output.id for output in frame.outputs for _ in output.token_ids)]

    def cancel(self, ids: list[int]) -> None:
        """End these requests."""
        self.core.handle(_CLIENT, Abort(ids))

    def generate(self, prompts: list[list[int]], new_tokens: int | list[int], sampling: SamplingParams = GREEDY) -> Recording:
        """Run all prompts to their ends; see ``submit``."""
        ends: list[float] = []
        made: list[list[int]] = []
        start = time.perf_counter()
        first = self.submit(prompts, new_tokens, sampling)[0]
        while not self.core.scheduler.idle:
            ids = self.step()
            if ids:
                ends.append(time.perf_counter() - start)
                made.append(ids)
        return Recording(len(prompts), ends, made, first)
