"""What ``test_ahead`` runs in processes of its own, without Triton's interpreter: ``start_up.py kernels|workers|orphans JSON``.

``kernels`` prints which specialisations of kernels a start meets, and which later steps meet beside them; nothing is compiled.
``workers`` compiles a handful for a GPU that is not there, and then launches them as an engine does; the log tells. ``orphans``
prints the ids of workers, and is killed.
"""

import json
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from triton import knobs
from triton.runtime.jit import JITFunction

from octavo.config import EngineConfig, WeightsFormat
from octavo.engine.step import Masks, StepInput
from octavo.models.loader import load_outline
from octavo.runtime import ahead, outline
from octavo.runtime.padded_step import PaddedStep
from octavo.runtime.rehearsal import rehearsal
from octavo.runtime.shapes import Shape, Shapes
from octavo.runtime.steps import Steps
from octavo_kernels import for_device, precompile
from octavo_kernels.swiglu import swiglu

log = logging.getLogger(__name__)

META = torch.device("meta")


def config_of(settings: dict[str, Any]) -> EngineConfig:
    return EngineConfig(name="m", version=1, weights_format=WeightsFormat.DUMMY, tokenizer="", **settings)


class Met:
    """Which kernels are asked for, in which specialisation; none is compiled."""

    def __init__(self, capability: int) -> None:
        self.now: set[str] = set()
        self.functions: dict[str, JITFunction] = {}
        precompile.driver.set_active(precompile.NamedTarget(divmod(capability, 10)))
        knobs.runtime.jit_cache_hook = self.hear

    def hear(self, *, key: Any, fn: Any, **_: Any) -> bool:
        self.now.add(f"{fn.name} {key}")
        self.functions[fn.name] = fn.jit_function
        return True

    def within(self, run: Callable[[], object]) -> set[str]:
        self.now = set()
        with torch.inference_mode():
            run()
        return self.now


def renamed(functions: dict[str, JITFunction]) -> list[str]:
    """Those that Triton's cache has under another name once what they call has been named before them."""
    before = {name: function.cache_key for name, function in functions.items()}
    for function in functions.values():
        function.hash = None
    return sorted(name for name, function in functions.items() if function.cache_key != before[name])


def random_steps(config: EngineConfig, max_len: int) -> Iterator[StepInput]:
    random = np.random.default_rng(1)
    for _ in range(80):
        rows = int(random.integers(1, config.max_num_seqs + 1))
        decodes = int(random.choice([0, random.integers(0, rows + 1)]))
        room = config.max_num_batched_tokens - decodes
        chunks = []
        while len(chunks) < rows - decodes and room > 0:
            chunks.append(int(random.integers(1, min(room, max_len, int(2 ** random.integers(1, 14))) + 1)))
            room -= chunks[-1]
        queries = np.array([1] * min(decodes, config.max_num_batched_tokens) + chunks)
        contexts = np.minimum(queries + random.integers(0, max_len, len(queries)), max_len)
        samples = random.random(len(queries)) < 0.9
        yield StepInput(
            [], np.zeros((0, 3), np.int32), np.arange(len(queries)), np.zeros(sum(chunks), np.int32), queries, contexts,
            len(queries) - len(chunks), samples,
        )  # fmt: skip


def kernels(config: EngineConfig, capability: int, page_size: int) -> dict[str, object]:
    met = Met(capability)
    everything = met.within(lambda: outline.launch_everything(config, page_size))
    decoder, courier, kit = load_outline(config), outline.ShapesOnly(), for_device(META, config.deterministic)
    steps = Steps(decoder, kit, page_size, config.max_num_seqs, courier, META)
    steps.take_cache(1)
    del steps.kv[1:]
    shapes = Shapes(min(config.max_num_seqs, config.max_num_batched_tokens))
    every = [*shapes.decodes, *shapes.chunks]
    padded = PaddedStep(decoder, kit, steps.table, steps.state, courier, page_size, every, META)

    def run(step: StepInput, masks: Masks) -> None:
        steps.begin(step)
        steps.compute(step).draw(masks)

    def replay(shape: Shape) -> None:
        control = padded.send(padded.control(shape))
        padded.forward(control, steps.kv)
        padded.sample(control)

    def start() -> None:
        for step, masks in rehearsal(config, decoder.max_len, decoder.shape.vocab_size):
            run(step, masks)
        for shape in [*shapes.largest, *shapes.first]:
            replay(shape)

    def later() -> None:
        for step in random_steps(config, decoder.max_len):
            if shapes.of(step) is None or step.num_decodes < len(step.rows):
                run(step, Masks({}, np.zeros((0, 1), np.int32)))
        for shape in every:
            replay(shape)

    at_start, afterwards = met.within(start), met.within(later)
    return {
        "names": sorted({key.split()[0] for key in everything}),
        "compiled_in_vain": sorted(everything - at_start),
        "not_compiled_ahead": sorted(at_start - everything),
        "met_later": sorted(afterwards - at_start),
        "renamed": renamed(met.functions),
    }


def launch_a_few(config: EngineConfig, page_size: int) -> None:
    """Six specialisations, in place of those of an engine. What FAILS names befalls one worker, or each, on the way."""
    for at, dtype in enumerate((torch.bfloat16, torch.float16, torch.float32)):
        swiglu(torch.empty(2, 32, dtype=dtype, device=META))
        fails = os.environ.get("FAILS") if at == 1 else None
        if fails == "one is killed":
            with suppress(FileExistsError):
                Path(os.environ["TRITON_CACHE_DIR"], "killed").touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        if fails == "all raise":
            raise ValueError("as the test wants it")
        swiglu(torch.empty(2, 34, dtype=dtype, device=META))


def workers(config: EngineConfig, capability: int, page_size: int) -> dict[str, object]:
    outline.launch_everything = launch_a_few
    with ahead.compiled_ahead(config, page_size, divmod(capability, 10)):
        pass
    ahead.warn_of_compiles()
    precompile.driver.set_active(precompile.NamedTarget(divmod(capability, 10)))
    run = JITFunction.run
    JITFunction.run = lambda self, *args, warmup, **options: run(self, *args, warmup=True, **options)
    os.environ.pop("FAILS", None)
    launch_a_few(config, page_size)
    log.info("Now one that the start has not met")
    swiglu(torch.empty(2, 64, dtype=torch.float64, device=META))
    return {}


def orphans(config: EngineConfig, capability: int, page_size: int) -> dict[str, object]:
    outline.launch_everything = lambda *_: time.sleep(100)
    with ahead.compiled_ahead(config, page_size, divmod(capability, 10)):
        print(json.dumps([worker.pid for worker in multiprocessing.active_children()]), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    return {}


if __name__ == "__main__":
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO, stream=sys.stderr)
    asked = json.loads(sys.argv[2])
    ahead.usable_cores = lambda: 2
    run_it = {"kernels": kernels, "workers": workers, "orphans": orphans}[sys.argv[1]]
    print(json.dumps(run_it(config_of(asked["config"]), asked["capability"], asked["page_size"])))
