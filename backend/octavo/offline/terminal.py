"""Answers as they come, in a terminal: one for a prompt, or a conversation. Knows how to show text, not where it comes from."""

import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from typing import Any, NamedTuple

from rich.console import Console

from octavo.errors import OctavoError
from octavo.text.request import Conversation, GenerateChunk, Prompt

Chunks = Generator[GenerateChunk]
_HELP = "Ctrl-C stops an answer, /clear begins anew, Ctrl-D or /exit ends."
# A model's text must not steer the terminal that shows it.
_HARMLESS = {code: "\N{REPLACEMENT CHARACTER}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}


class Shown(NamedTuple):
    """An answer as far as it was shown; ``interrupted`` by Ctrl-C."""

    text: str
    interrupted: bool


class Terminal:
    """Text on standard output; what is said about it on standard error, and only if somebody looks at both."""

    def __init__(self) -> None:
        """Nothing is shown yet."""
        self._out = Console(highlight=False, markup=False, soft_wrap=True)
        self._notes = Console(stderr=True, highlight=False, markup=False)
        self._watched = self._out.is_terminal and self._notes.is_terminal

    def show(self, chunks: Chunks, prompt: str = "") -> Shown:
        """Write ``prompt``, then the one sample of an answer as it comes. Raises what the answer does."""
        started, first, tokens = time.monotonic(), 0.0, 0
        said: list[str] = []
        interrupted = False
        self._write(prompt, bold=True)
        try:
            with closing(chunks):
                for chunk in chunks:
                    (sample,) = chunk.samples
                    first = first or time.monotonic()
                    tokens += len(sample.token_ids)
                    said.append(sample.text)
                    self._write(sample.text)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            self._write("\n")
        if tokens:
            self._note(_speed(tokens, first - started, time.monotonic() - first))
        return Shown("".join(said), interrupted)

    def converse(self, answer: Callable[[Prompt], Chunks], system: str | None) -> None:
        """Ask for messages and answer them, until the input ends."""
        beginning = [] if system is None else [{"role": "system", "content": system}]
        messages = list(beginning)
        if self._watched:
            with suppress(ImportError):  # some Pythons come without
                import readline  # noqa: F401  gives ``input`` a history and keys that move
            self._note(_HELP)
        while (text := self._ask()) is not None:
            if text == "/clear":
                messages = list(beginning)
            elif text:
                messages += self._turn(answer, [*messages, {"role": "user", "content": text}])

    def _turn(self, answer: Callable[[Prompt], Chunks], messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What is new in the conversation: the last message and the answer, or nothing if that was refused."""
        try:
            shown = self.show(answer(Conversation(messages)))
        except OctavoError as error:
            self._notes.print(f"Error: {error}", style="red")
            return []
        return [messages[-1], {"role": "assistant", "content": shown.text}]

    def _ask(self) -> str | None:
        """The next message; None if there is none."""
        try:
            text = input("> " if self._watched else "").strip()
        except (EOFError, KeyboardInterrupt):
            if self._watched:
                self._write("\n")
            return None
        return None if text == "/exit" else text

    def _write(self, text: str, bold: bool = False) -> None:
        if self._out.is_terminal:
            self._out.print(text.translate(_HARMLESS), end="", style="bold" if bold else None)
        else:
            sys.stdout.write(text)
            sys.stdout.flush()

    def _note(self, text: str) -> None:
        if self._watched:
            self._notes.print(text, style="dim")


def _speed(tokens: int, first: float, rest: float) -> str:
    rate = f", then {(tokens - 1) / rest:.1f} tokens/s" if tokens > 1 else ""
    return f"{tokens} tokens; the first after {first:.2f} s{rate}"
