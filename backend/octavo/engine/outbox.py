"""``Outbox``: what there is to tell each front end since it was last emptied. Knows no row and no page."""

from collections import defaultdict

import numpy as np

from octavo.engine.messages import EngineFrame, EngineOutput, FinishReason
from octavo.errors import ErrorFrame, OctavoError

Outputs = dict[bytes, EngineFrame]


class Outbox:
    """One frame for each front end. Where many requests are told of at once, front ends go by their numbers."""

    def __init__(self) -> None:
        """There is nothing to tell."""
        self._frames: Outputs = defaultdict(EngineFrame)
        self._clients: list[bytes] = []

    def number(self, client: bytes) -> int:
        """That of a front end, from now on."""
        if client not in self._clients:
            self._clients.append(client)
        return self._clients.index(client)

    def put(self, client: bytes, output: EngineOutput) -> None:
        """Tell one front end of one request."""
        self._frames[client].outputs.append(output)

    def refuse(self, client: bytes, request_id: int, error: OctavoError) -> None:
        """Answer a request with ``error`` alone."""
        self.put(client, EngineOutput(request_id, finish=FinishReason.ERROR, error=ErrorFrame.of(error)))

    def put_tokens(self, clients: np.ndarray, ids: np.ndarray, tokens: np.ndarray) -> None:
        """One more token each for the requests ``ids`` of the front ends with the numbers ``clients``, and nothing else to say."""
        counts = np.bincount(clients)
        for number in counts.nonzero()[0].tolist():
            mine = slice(None) if counts[number] == len(ids) else clients == number
            frame = self._frames[self._clients[number]]
            frame.ids += ids[mine].tobytes()
            frame.token_ids += tokens[mine].tobytes()

    def empty(self) -> Outputs:
        """All of it."""
        frames, self._frames = self._frames, defaultdict(EngineFrame)
        return frames
