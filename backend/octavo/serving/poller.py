"""``Poller``: loads what is new or has changed in the repository, and unloads what is gone. Knows no model and no process."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from octavo.errors import OctavoError
from octavo.repository.fingerprint import Fingerprint
from octavo.repository.repository import ModelRepository

log = logging.getLogger(__name__)
Change = Callable[[str], Awaitable[None]]


class Poller:
    """What the repository was like when it was last looked at. A load that failed is tried again once its files change."""

    def __init__(self, repository: ModelRepository, load: Change, unload: Change) -> None:
        """``load`` and ``unload`` get the name of a model."""
        self._repository, self._load, self._unload = repository, load, unload
        self._seen: dict[str, Fingerprint] = {}

    async def look(self) -> list[str]:
        """The models that are new or have changed, all of them at the first time; unloads those that are gone."""
        now = await asyncio.to_thread(self._repository.fingerprints)
        before, self._seen = self._seen, now
        for name in sorted(before.keys() - now.keys()):
            log.info("Model %s is gone from the repository.", name)
            await self._unload(name)
        return sorted(name for name in now if now[name] != before.get(name))

    async def run(self, every: float) -> NoReturn:
        """Look every so many seconds, for ever."""
        while True:
            await asyncio.sleep(every)
            await asyncio.gather(*(self._reload(name) for name in await self.look()))

    async def _reload(self, name: str) -> None:
        log.info("Model %s is new in the repository or has changed.", name)
        try:
            await self._load(name)
        except OctavoError as error:
            log.error("%s What served before goes on serving.", error)
