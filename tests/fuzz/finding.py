"""``Finding``: what a fuzzer has found, with the case that led to it."""

from typing import Any


class Finding(AssertionError):
    """A crash, a hang, a leak, or an error that is ours. Can be sent from one process to another."""

    def __init__(self, case: Any, what: object) -> None:
        super().__init__(case, what if isinstance(what, str) else f"{type(what).__name__}: {what}")

    def __str__(self) -> str:
        case, what = self.args
        return f"{what}\nafter {case!r}"
