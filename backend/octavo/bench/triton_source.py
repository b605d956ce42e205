"""The peer of ``octavo.bench.source``: a model of a real Triton's Python backend that makes tokens without computing.

Triton runs a copy of this file, with its own Python; nothing of Octavo is known here. The words of the prompt come over and
over, one a response, and the last says so, as an LLM's backend does.
"""

import json
import queue
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

LONG, EARLY = 5e-3, 3e-4
FINAL = pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL


class Answer:
    """One request's answer on its way."""

    def __init__(self, request: Any) -> None:
        """Nothing is sent yet."""
        tensors = {tensor.name(): tensor.as_numpy()[0] for tensor in request.inputs()}
        self._sender = request.get_response_sender()
        self._words = [b" " + word for word in tensors["text_input"].split()]
        sampling = json.loads(tensors["sampling_parameters"])
        self._count, self._sent = sampling["max_tokens"], 0
        self._period = 1 / sampling["seed"] if sampling["seed"] else 0.0
        now = time.monotonic()
        self.due = (now // self._period + 1) * self._period if self._period else now

    def make(self) -> Any:
        """One more token."""
        word = self._words[self._sent % len(self._words)]
        self._sent += 1
        self.due += self._period
        return pb_utils.InferenceResponse([pb_utils.Tensor("text_output", np.array([word], dtype=object))])

    def send(self, response: Any) -> bool:
        """Send what was made last; whether there are more."""
        more = self._sent < self._count
        self._sender.send(response, flags=0 if more else FINAL)
        return more


class TritonPythonModel:
    """``threads``: a thread for each request, which sends as fast as it can; else one that gives every request a token a step."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read the parameters of ``config.pbtxt``."""
        parameters = {name: value["string_value"] for name, value in json.loads(args["model_config"])["parameters"].items()}
        self._threads = parameters["threads"] == "yes"
        self._arrived: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        threading.Thread(target=self._steps, daemon=True).start()

    def execute(self, requests: list[Any]) -> None:
        """Begin to answer."""
        for request in requests:
            answer = Answer(request)
            if self._threads:
                threading.Thread(target=_send_all, args=(answer,), daemon=True).start()
            else:
                self._arrived.put(answer)

    def _steps(self) -> None:
        answers: list[Answer] = []
        Path(f"/proc/{threading.get_native_id()}/timerslack_ns").write_text("1")  # as our own source's
        while True:
            if not answers:
                answers.append(self._arrived.get())
            while not self._arrived.empty():
                answers.append(self._arrived.get())
            due = min(answer.due for answer in answers)
            watching = _slept_long(due)
            now = max(due, time.monotonic())
            made = {answer: answer.make() for answer in answers if answer.due <= now}
            _wait_until(due, watching)
            answers = [answer for answer in answers if answer not in made or answer.send(made[answer])]


def _slept_long(due: float) -> bool:
    """As our own source does."""
    left = due - time.monotonic()
    if left > LONG:
        time.sleep(left - EARLY)
    return left > LONG


def _wait_until(due: float, watching: bool) -> None:
    """As our own source does."""
    if not watching:
        time.sleep(max(0.0, due - time.monotonic()))
    while time.monotonic() < due:
        pass


def _send_all(answer: Answer) -> None:
    while answer.send(answer.make()):
        pass
