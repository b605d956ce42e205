"""``Observer``: what a generation tells those who count. Knows none of them."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from octavo.text.generator import Generation


class Observer:
    """What a generation tells those who count; this one does not care. Times are seconds of ``time.monotonic``."""

    def first_tokens(self, generation: "Generation", seconds: float, count: int) -> None:
        """A sample's first ``count`` tokens came ``seconds`` after the request."""

    def next_tokens(self, seconds: float, count: int) -> None:
        """``count`` more tokens of a sample came ``seconds`` after the ones before."""

    def responded(self, generation: "Generation") -> None:
        """A piece of the answer was taken that is not the last."""

    def finished(self, generation: "Generation") -> None:
        """The generation is over: complete, failed (``generation.error``) or cancelled. Called once."""
