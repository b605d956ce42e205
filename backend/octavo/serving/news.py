"""``News``: many tasks wait for something to change. Knows nothing of what it is."""

import asyncio


class News:
    """Something that many tasks wait for to change; they look for themselves at what did."""

    def __init__(self) -> None:
        """Nothing has changed yet."""
        self._event = asyncio.Event()

    def tell(self) -> None:
        """Wake everybody who waits."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self) -> None:
        """Return at the next ``tell``."""
        await self._event.wait()
