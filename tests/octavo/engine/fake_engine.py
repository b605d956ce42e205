"""A real engine process around ``FakeRunner``. ``hf_overrides`` of its config says how it misbehaves; run by ``test_process``."""

import os
import sys
import time

from fakes import FakeRunner, Made, make_info

from octavo.config import EngineConfig
from octavo.engine.core import EngineCore
from octavo.engine.process import main
from octavo.engine.step import StepInput


class MisbehavingRunner(FakeRunner):
    """Takes ``step_seconds`` a step and raises in step ``fail_at``."""

    def __init__(self, config: EngineConfig) -> None:
        super().__init__(make_info(max_model_len=4096, num_pages=4096))
        self._options = config.hf_overrides

    def launch(self, step: StepInput) -> Made:
        time.sleep(self._options.get("step_seconds", 0))
        output = super().launch(step)
        if len(self.steps) == self._options.get("fail_at"):
            raise RuntimeError("the device caught fire in /secret/folder/kernel.cu at 0x7f00dead\nand more")
        return output


def load(config: EngineConfig) -> EngineCore:
    if "load_error" in config.hf_overrides:
        raise ValueError(config.hf_overrides["load_error"])
    return EngineCore(config, MisbehavingRunner(config))


if __name__ == "__main__":
    code = main(load)
    sys.stderr.flush()
    os._exit(code)
