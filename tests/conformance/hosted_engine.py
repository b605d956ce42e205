"""Octavo's engine process, without weights for those models that ``backend`` answers for."""

import logging
import os
from types import SimpleNamespace

from conformance.backend import MODELS
from octavo.config import EngineConfig
from octavo.engine import process
from octavo.engine.core import Runner
from octavo.engine.messages import EngineInfo

NOTHING = EngineInfo(
    max_model_len=64, vocab_size=256, page_size=16, num_pages=4, dtype="float32", eos_token_ids=[], weights_bytes=0, max_logprobs=0
)


def load(config: EngineConfig) -> Runner:
    """A runner that is never asked to run, or the real one."""
    return SimpleNamespace(info=NOTHING, runs_ahead=False) if config.name in MODELS else process.load_runner(config)


if __name__ == "__main__":
    code = process.main(load)
    logging.shutdown()
    os._exit(code)
