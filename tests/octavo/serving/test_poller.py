"""What the poller does about models that come, change, cannot be loaded and go."""

import asyncio
from collections.abc import Awaitable, Callable

from octavo.errors import LoadFailed
from octavo.serving.poller import Poller


class Repository:
    """Models and what their files are like."""

    def __init__(self, **models: int) -> None:
        self.models = models

    def fingerprints(self) -> dict[str, frozenset[int]]:
        return {name: frozenset([files]) for name, files in self.models.items()}


async def follow(repository: Repository, *changes: Callable[[], object]) -> list[str]:
    """What was loaded and unloaded, a word each, while the repository went through ``changes``."""
    told: list[str] = []
    looks = asyncio.Semaphore(0)

    def telling(what: str) -> Callable[[str], Awaitable[None]]:
        async def tell(name: str) -> None:
            told.append(f"{what}:{name}")
            if what == "load" and name == "bad":
                raise LoadFailed("It is bad.")

        return tell

    poller = Poller(repository, telling("load"), telling("unload"))
    look = poller.look

    async def counted() -> list[str]:
        found = await look()
        looks.release()
        return found

    told += [f"start:{name}" for name in await poller.look()]
    poller.look = counted
    running = asyncio.ensure_future(poller.run(0.001))
    for change in changes:
        change()
        for _ in range(3):
            await looks.acquire()
    running.cancel()
    await asyncio.wait({running})
    assert running.cancelled()
    return told


def test_models_come_change_and_go() -> None:
    repository = Repository(a=1, b=1)
    told = asyncio.run(
        follow(
            repository,
            lambda: repository.models.update(a=2),
            lambda: repository.models.update(c=1),
            lambda: repository.models.pop("b"),
            lambda: repository.models.update(b=1),
        )
    )
    assert told == ["start:a", "start:b", "load:a", "load:c", "unload:b", "load:b"]


def test_a_load_that_failed_is_tried_again_once_its_files_change() -> None:
    repository = Repository(a=1)
    told = asyncio.run(follow(repository, lambda: repository.models.update(bad=1), lambda: repository.models.update(bad=2)))
    assert told == ["start:a", "load:bad", "load:bad"]
