"""Differences of two servers' answers, and whether each is one that ``docs/conformance.md`` gives a reason for."""

import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from conformance.answers import Data

PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
_ROW = re.compile(r"^\| `(?P<case>[^`]+)` \| `(?P<place>[^`]+)` \|")
_ABSENT = "(absent)"


class Difference(NamedTuple):
    """One place of one case's answer, and what either server has there."""

    case: str
    place: str
    triton: Any
    octavo: Any

    def __str__(self) -> str:
        """Three lines for a reader."""
        return f"{self.case} · {self.place}\n    Triton: {self.triton!r}\n    Octavo: {self.octavo!r}"


class Reason(NamedTuple):
    """A row of the page: which cases and places it speaks of, as patterns with ``*``."""

    case: str
    place: str

    def explains(self, difference: Difference) -> bool:
        """Whether ``difference`` is one of those."""
        return fnmatchcase(difference.case, self.case) and fnmatchcase(difference.place, self.place)


def differences(triton: Mapping[str, Data], octavo: Mapping[str, Data]) -> list[Difference]:
    """All of them, the smallest part of an answer that differs each."""
    found: list[Difference] = []
    for case in triton:
        left, right = triton[case], octavo[case]
        if left.get("code") != right.get("code"):
            found.append(Difference(case, "code", _summary(left), _summary(right)))
        else:
            found += [Difference(case, *where) for where in _compare("", left, right)]
    return found


def reasons(page: Path = PAGE) -> list[Reason]:
    """The rows of the page's tables that begin with a case and a place, each in backquotes."""
    found = (_ROW.match(line) for line in page.read_text(encoding="utf-8").splitlines())
    return [Reason(row["case"], row["place"]) for row in found if row]


def complaints(found: list[Difference], known: list[Reason]) -> list[str]:
    """What is wrong: differences without a reason, and reasons without a difference."""
    unexplained = [f"not in {PAGE.name}: {one}" for one in found if not any(reason.explains(one) for reason in known)]
    gone = [f"in {PAGE.name}, but no difference any more: {reason.case} · {reason.place}" for reason in known
            if not any(reason.explains(one) for one in found)]  # fmt: skip
    return unexplained + gone


def _summary(answer: Data) -> str:
    return f"{answer['code']}: {answer['text']}" if answer.get("text") else str(answer.get("code"))


def _compare(place: str, triton: Any, octavo: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(triton, dict) and isinstance(octavo, dict):
        for key in [*triton, *(key for key in octavo if key not in triton)]:
            yield from _compare(f"{place}.{key}".lstrip("."), triton.get(key, _ABSENT), octavo.get(key, _ABSENT))
    elif isinstance(triton, list) and isinstance(octavo, list) and len(triton) == len(octavo):
        for number, (left, right) in enumerate(zip(triton, octavo, strict=True)):
            yield from _compare(f"{place}.{number}", left, right)
    elif triton != octavo:
        yield place, triton, octavo
