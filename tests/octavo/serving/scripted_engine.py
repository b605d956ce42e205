"""An engine process that says each prompt once more, token by token, and then stops: any answer that a test likes, end to end."""

import logging
import os
import time

import msgspec

from octavo.bench.source import Answer, TokenSource
from octavo.engine import process
from octavo.engine.messages import EngineCommand, EngineFrame, FinishReason, Submit


class Script(TokenSource):
    """See above. ``max_tokens`` may cut an answer, which then ends for that reason."""

    def _handle(self, client: bytes, command: EngineCommand) -> None:
        if not isinstance(command, Submit):
            super()._handle(client, command)
            return
        for request in command.requests:
            answer = self._open[client, request.id] = Answer(request, time.monotonic())
            answer.left = min(len(answer.prompt), request.sampling.max_tokens or len(answer.prompt))
            answer.period = answer.due = 0.0

    def _answer(self, frame: EngineFrame, client: bytes, request_id: int, answer: Answer) -> None:
        super()._answer(frame, client, request_id, answer)
        if not answer.left and answer.made == len(answer.prompt):
            frame.outputs[-1] = msgspec.structs.replace(frame.outputs[-1], finish=FinishReason.STOP)


if __name__ == "__main__":
    code = process.main(Script)
    logging.shutdown()
    os._exit(code)
