"""``Renderer``: a template's text, rendered in a process of its own. Knows no Jinja and no conversation.

A helper, one for all templates, forks a process for each that is rendered. What takes too much time or memory ends that process and
costs nobody but those who asked.
"""

import json
from contextlib import suppress
from typing import Any

from octavo.engine.helper import Helper, Job
from octavo.errors import InvalidRequest, Overloaded

MOST_SECONDS = 1.0  # of CPU time
MOST_BYTES = 256 << 20
MOST_CHARACTERS = 16 << 20
TEXT, REFUSAL = b"T", b"R"
_PATIENCE = 10.0  # for an answer, on a machine that is very busy


class Renderer:
    """Renders one template, as many texts at a time as there are threads that ask. Thread-safe."""

    def __init__(self, source: str, helper: Helper) -> None:
        """Nothing runs before ``start`` or the first ``render``. ``helper``: of ``template_helper``."""
        self._source = json.dumps(source).encode()
        self._helper = helper
        self._idle: list[Job] = []

    def start(self) -> None:
        """Start a process, without waiting for it."""
        self._idle.append(self._process())

    def render(self, variables: dict[str, Any]) -> str:
        """What the template makes of ``variables``.

        Raises ``InvalidRequest`` if it cannot or takes too much, ``Overloaded`` if the machine is too busy to tell.
        """
        try:
            told = json.dumps(variables).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidRequest("The model's chat template can only be told what can be written as JSON.") from error
        try:
            answer = self._answer(told)
        except (EOFError, OSError) as error:
            raise over_limit() from error
        text = answer[1:].decode("utf-8", "surrogatepass")
        if answer[:1] == REFUSAL:
            raise InvalidRequest(text)
        return text

    def _answer(self, told: bytes) -> bytes:
        process = self._asked(told)
        try:
            return self._heard(process)
        except (EOFError, OSError):
            if not process.never_was():
                raise
        # Who asks must not pay for a helper that was killed, unless helpers end again and again.
        return self._heard(self._process(told))

    def _asked(self, told: bytes) -> Job:
        """A process that is at work on it: one that idles, if it has not been ended by somebody since."""
        try:
            process = self._idle.pop()
            process.connection.send_bytes(told)
        except (IndexError, OSError):
            process = self._process(told)
        return process

    def _process(self, *told: bytes) -> Job:
        process = self._helper.job()
        with suppress(OSError):  # its first answer will be that it has ended
            for message in (self._source, *told):
                process.connection.send_bytes(message)
        return process

    def _heard(self, process: Job) -> bytes:
        if not process.connection.poll(_PATIENCE):  # its own time is limited by the kernel: it has not had it
            raise Overloaded(f"The model's chat template was not applied within {_PATIENCE:g} s: the machine is busy; try again.")
        answer = process.receive()
        self._idle.append(process)
        return answer


def template_helper() -> Helper:
    """What forks the processes that render, of any number of templates."""
    return Helper("octavo.text.template_process")


def over_limit() -> InvalidRequest:
    """What is told of a template that takes too much."""
    allowed = f"{MOST_SECONDS:g} s, {MOST_BYTES >> 20} MiB of memory or {MOST_CHARACTERS} characters"
    return InvalidRequest(f"The model's chat template takes more than {allowed} for these messages.")
