"""Octavo's engine process, without weights for those models that ``backend`` answers for."""

import logging
import os
from types import SimpleNamespace

from conformance.backend import MODELS
from octavo.config import EngineConfig
from octavo.engine import process
from octavo.engine.core import EngineCore
from octavo.engine.messages import EngineInfo

NOTHING = EngineInfo(
    max_model_len=64, vocab_size=256, page_size=16, num_pages=4, dtype="float32", eos_token_ids=[], weights_bytes=0, max_logprobs=0
)


def load(config: EngineConfig) -> process.Core:
    """An engine that is never asked to run, or the real one."""
    if config.name not in MODELS:
        return process.load_core(config)
    return EngineCore(config, SimpleNamespace(info=NOTHING, runs_ahead=0, warm_up=lambda: False))


if __name__ == "__main__":
    code = process.main(load)
    logging.shutdown()
    os._exit(code)
