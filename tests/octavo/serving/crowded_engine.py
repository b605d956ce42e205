"""An engine process that believes to be on a GPU which has room for one of its kind; that is what a lock on a file stands for."""

import fcntl
import logging
import os

import msgspec

from octavo.config import EngineConfig
from octavo.engine import process
from octavo.engine.core import EngineCore
from octavo.errors import LoadFailed

UNLUCKY = 13
device = os.open(os.environ["OCTAVO_TEST_DEVICE"], os.O_RDWR | os.O_CREAT)


def load(config: EngineConfig) -> process.Core:
    """The real engine, if the device is free and ``seed`` is not ``UNLUCKY``."""
    try:
        fcntl.flock(device, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LoadFailed("The device is full.") from None
    if config.seed == UNLUCKY:
        raise LoadFailed("The device is out of luck.")
    runner = process.load_runner(config)
    runner.info = msgspec.structs.replace(runner.info, device="cuda:0", device_bytes=10**9)
    return EngineCore(config, runner)


if __name__ == "__main__":
    code = process.main(load)
    logging.shutdown()
    os._exit(code)
