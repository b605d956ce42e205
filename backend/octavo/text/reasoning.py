"""``Reasoning``: how a family of models marks what it writes for itself. Knows no tools and no wire."""

from collections.abc import Callable, Iterable
from enum import Enum
from typing import NamedTuple

from octavo.structured_outputs import Thoughts
from octavo.text.tokenizer import Tokenizer
from octavo.text.tools.watch import Watch

# More than any template writes between a marker and the end of a prompt.
_TAIL = 64


class Place(Enum):
    """Where in its reasoning an answer begins."""

    BEFORE = 0
    INSIDE = 1
    OVER = 2


class Reasoning(NamedTuple):
    """Thoughts stand between ``start`` and ``end``, before everything else. ``always``: there are some, ``start`` or not."""

    start: str
    end: str
    always: bool = False

    def place(self, tokenizer: Tokenizer, prompt_token_ids: list[int]) -> Place:
        """Where the answer to a prompt begins, as some templates write one marker or both."""
        tail = tokenizer.decode(prompt_token_ids[-_TAIL:]).rstrip()
        if tail.endswith(self.end):
            return Place.OVER
        return Place.INSIDE if tail.endswith(self.start) or self.always else Place.BEFORE

    def thoughts(self, tokenizer: Tokenizer, prompt_token_ids: list[int]) -> Thoughts | None:
        """What may still come before the answer to a prompt."""
        place = self.place(tokenizer, prompt_token_ids)
        return None if place is Place.OVER else Thoughts(self.start if place is Place.BEFORE else "", self.end)


class ReasoningSplit:
    """Parts one answer. Blanks around a marker belong to it."""

    def __init__(self, reasoning: Reasoning, place: Place, thought: Callable[[str], None], answer: Callable[[str], None]) -> None:
        """Thoughts go to ``thought``, everything after them to ``answer``, character by character."""
        self._reasoning, self._thought, self._answer = reasoning, thought, answer
        self._watch = Watch([reasoning.end], thought)
        self._blanks: list[str] = []
        self._held = ""
        self._inside = place is Place.INSIDE
        self._step = {Place.BEFORE: self._read_start, Place.INSIDE: self._read_start, Place.OVER: answer}[place]
        self.reasons = self._inside

    @property
    def over(self) -> bool:
        """Whether everything that comes is for ``answer``."""
        return self._step is self._answer

    def step(self, character: str) -> None:
        """Take in one more character."""
        self._step(character)

    def finish(self) -> None:
        """Nothing follows."""
        if self._step == self._read_start:
            self._leave_start()
        if self._step == self._read_thought:
            self._watch.finish(keep_blanks=True)

    def _read_start(self, character: str) -> None:
        """The marker may come, or come again although the prompt has it."""
        if character.isspace() and not self._held:
            self._blanks.append(character)
        elif self._reasoning.start.startswith(self._held + character):
            self._held += character
            if self._held == self._reasoning.start:
                self._held, self.reasons, self._step = "", True, self._read_blanks
        else:
            self._leave_start()
            self._step(character)

    def _leave_start(self) -> None:
        """It does not come."""
        held, self._held = "".join((*self._blanks, self._held)), ""
        self._step = self._read_blanks if self._inside else self._answer
        for character in held:
            self._step(character)

    def _read_blanks(self, character: str) -> None:
        if not character.isspace():
            self._step = self._read_thought
            self._step(character)

    def _read_thought(self, character: str) -> None:
        if self._watch.step(character) is not None:
            self._step = self._skip_blanks

    def _skip_blanks(self, character: str) -> None:
        if not character.isspace():
            self._step = self._answer
            self._step(character)


class ReasoningTokens:
    """Counts the tokens of an answer up to the one that completes the end of its reasoning."""

    def __init__(self, reasoning: Reasoning, tokenizer: Tokenizer) -> None:
        """None have come."""
        self.count = 0
        self._end = reasoning.end.encode()
        self._tokenizer = tokenizer
        self._tail = b""
        self._ended = False

    def add(self, token_ids: Iterable[int]) -> None:
        """More tokens have come."""
        for token_id in token_ids:
            if self._ended:
                return
            self.count += 1
            seen = self._tail + self._tokenizer.token_bytes(token_id)
            self._ended = self._end in seen
            self._tail = seen[-len(self._end) :]
