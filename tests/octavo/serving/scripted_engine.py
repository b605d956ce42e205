"""An engine process that says each prompt once more, token by token, and then stops: any answer that a test likes, end to end."""

import logging
import os
import time

from octavo.bench.source import Answer, TokenSource
from octavo.engine import process
from octavo.engine.messages import EngineCommand, EngineOutput, FinishReason, Submit


class Script(TokenSource):
    """See above. ``max_tokens`` may cut an answer, which then ends for that reason."""

    def _handle(self, client: bytes, command: EngineCommand) -> None:
        super()._handle(client, command)
        for request in command.requests if isinstance(command, Submit) else ():
            answer = self._open[client, request.id]
            answer.left = min(len(answer.prompt), request.sampling.max_tokens or len(answer.prompt))
            answer.period, answer.due = 0.0, time.monotonic()

    def _tell(self, client: bytes, request_id: int, token: int, answer: Answer) -> None:
        if answer.left or answer.made < len(answer.prompt):
            super()._tell(client, request_id, token, answer)
            return
        start = 0 if answer.made == 1 else None
        finish = FinishReason.STOP
        self._outbox.put(client, EngineOutput(request_id, [token], finish, num_cached_tokens=start, queue_seconds=start))
        del self._open[client, request_id]


if __name__ == "__main__":
    code = process.main(Script)
    logging.shutdown()
    os._exit(code)
