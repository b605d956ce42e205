"""An engine process that says it is ready and never says anything again."""

import sys
import threading

import msgspec

from octavo.engine.control import ControlChannel, EngineReady, EngineSpec
from octavo.engine.lifeline import die_with_parent
from octavo.engine.messages import EngineInfo

if __name__ == "__main__":
    spec = msgspec.json.decode(sys.stdin.buffer.read(), type=EngineSpec)
    die_with_parent(spec.parent)
    info = EngineInfo(64, 256, 16, 8, "float32", [], 0, 5)
    ControlChannel(spec.control, spec.identity).report(EngineReady(info))
    threading.Event().wait()
