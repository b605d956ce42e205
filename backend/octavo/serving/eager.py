"""``run_eagerly``: a coroutine's steps without a task. Knows no call and no message."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


def run_eagerly(work: Coroutine[Any, Any, object], ended: Callable[[BaseException | None], None]) -> None:
    """Run ``work`` now until it waits, and on as soon as what it waits for is there; then call ``ended`` with its error, or None.

    ``work`` may wait for futures only, as all that asyncio's libraries wait for are in the end. A task would put two turns of
    the event loop between a message and its way out, and take half as long again.
    """

    def go_on(_: object = None) -> None:
        try:
            awaited = work.send(None)
        except StopIteration:
            ended(None)
        except (Exception, asyncio.CancelledError) as error:
            ended(error)
        else:
            awaited.add_done_callback(go_on)

    go_on()
