"""``Finding``: what a fuzzer has found, with the case that led to it."""

from typing import Any


class Finding(AssertionError):
    """A crash, a hang, a leak, or an error that is ours."""

    def __init__(self, case: Any, what: object) -> None:
        super().__init__(f"{type(what).__name__}: {what}\nafter {case!r}")
