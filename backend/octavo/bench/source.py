"""The engine process of ``octavo bench frontend``: a real one, but for its core, which makes tokens without a model or a schedule.

Run as ``python -m octavo.bench.source`` in place of ``octavo.engine.process``. Knows no client and nothing of what is measured.
"""

import logging
import os
import time
from typing import NoReturn

import numpy as np

from octavo.config import EngineConfig
from octavo.engine import process
from octavo.engine.control import ControlChannel, FrontEndGone, StatsQuery, StatsReply
from octavo.engine.endpoint import Endpoint
from octavo.engine.messages import (
    EngineCommand,
    EngineInfo,
    EngineOutput,
    EngineRequest,
    EngineStats,
    FinishReason,
    Submit,
)
from octavo.engine.outbox import Outbox, Outputs
from octavo.errors import OctavoError

INFO = EngineInfo(
    max_model_len=2**20,
    vocab_size=2**20,
    page_size=1,
    num_pages=0,
    dtype="none",
    eos_token_ids=[],
    weights_bytes=0,
    max_logprobs=0,
)


class Answer:
    """One request's answer on its way, to the front end with the number ``client``.

    ``due``: when its next token is, in seconds of ``time.monotonic``.
    """

    __slots__ = ("client", "due", "left", "made", "period", "prompt")

    def __init__(self, request: EngineRequest, client: int, now: float) -> None:
        """The first token is due at the next whole multiple of the period."""
        self.client = client
        self.prompt = request.prompt_token_ids
        self.left = request.sampling.max_tokens or 16
        self.made = 0
        self.period = 1 / request.sampling.seed if request.sampling.seed else 0.0
        self.due = (now // self.period + 1) * self.period if self.period else now


class TokenSource:
    """Repeats each prompt over and over, ``max_tokens`` tokens of it, a token a step for every request that is due.

    A request's ``seed`` says how many tokens a second it gets; without it, as many as can be. Tokens are due at whole multiples
    of that period on the system's monotonic clock; one that comes late delays no other.
    """

    def __init__(self, _: EngineConfig) -> None:
        """Ready at once."""
        self.info = INFO
        self._open: dict[tuple[bytes, int], Answer] = {}
        self._outbox = Outbox()
        self._made = 0

    def run(self, endpoint: Endpoint, control: ControlChannel) -> NoReturn:
        """Serve until the process is ended."""
        endpoint.watch(control)
        while True:
            if not self._open:
                endpoint.wait()
            for client, command in endpoint.commands():
                self._handle(client, command)
            for order in control.orders():
                match order:
                    case StatsQuery():
                        control.report(StatsReply(EngineStats(running=len(self._open), generation_tokens=self._made)))
                    case FrontEndGone(pid):
                        self._forget(b"%d." % pid)
            for client in endpoint.send(self._step()):
                self._forget(client)

    def refuse_all(self, error: OctavoError) -> Outputs:
        """What to tell each front end of its open requests."""
        for client, request_id in self._open:
            self._outbox.refuse(client, request_id, error)
        return self._outbox.empty()

    def _handle(self, client: bytes, command: EngineCommand) -> None:
        if isinstance(command, Submit):
            now = time.monotonic()
            for request in command.requests:
                self._open[client, request.id] = Answer(request, self._outbox.number(client), now)
        else:
            for request_id in command.ids:
                self._open.pop((client, request_id), None)

    def _forget(self, client: bytes) -> None:
        for key in [key for key in self._open if key[0].startswith(client)]:
            del self._open[key]

    def _step(self) -> Outputs:
        """A token for everybody to whom one is due, once it is due to anybody."""
        if not self._open:
            return {}
        if (early := min(answer.due for answer in self._open.values()) - time.monotonic()) > 0:
            time.sleep(early)
        now = time.monotonic()
        clients: list[int] = []
        ids: list[int] = []
        tokens: list[int] = []
        for (client, request_id), answer in list(self._open.items()):
            if answer.due <= now:
                token = answer.prompt[answer.made % len(answer.prompt)]
                answer.made += 1
                answer.left -= 1
                answer.due += answer.period
                self._made += 1
                if answer.made > 1 and answer.left:
                    clients.append(answer.client)
                    ids.append(request_id)
                    tokens.append(token)
                else:
                    self._tell(client, request_id, token, answer)
        self._outbox.put_tokens(*np.array([clients, ids, tokens], np.int64))
        return self._outbox.empty()

    def _tell(self, client: bytes, request_id: int, token: int, answer: Answer) -> None:
        """Of the first token, or of the last."""
        finish = None if answer.left else FinishReason.LENGTH
        start = 0 if answer.made == 1 else None
        self._outbox.put(client, EngineOutput(request_id, [token], finish, num_cached_tokens=start, queue_seconds=start))
        if finish:
            del self._open[client, request_id]


if __name__ == "__main__":
    code = process.main(TokenSource)
    logging.shutdown()
    os._exit(code)
