"""``take_picture``: an engine for those who watch it. Reads the scheduler and changes nothing; shows numbers, never a token."""

import numpy as np

from octavo.engine.messages import Picture, RunningRequest
from octavo.engine.scheduler import Scheduler

MOST_CELLS = 4096
FREE, CACHED, SHARED, FIRST_OWNER = range(4)


def take_picture(scheduler: Scheduler, now: float) -> Picture:
    """The scheduler as it is. O(pages); nothing of it is kept up to date while nobody looks."""
    idle = scheduler.pool.idle
    pages_per_cell = -(-scheduler.pool.num_pages // MOST_CELLS)
    requests = [
        RunningRequest(request.order[1], request.num_prompt, tokens, len(request.pages), now - (request.started or now))
        for request, tokens in zip(scheduler.running, scheduler.lengths(), strict=True)
    ]
    cells = _cells(_states(scheduler, idle), pages_per_cell)
    return Picture(now, scheduler.stats(), requests, len(idle), pages_per_cell, cells.astype("<u2").tobytes())


def _states(scheduler: Scheduler, idle: list[int]) -> np.ndarray:
    """int64 [pages], what each page is."""
    states = np.full(scheduler.pool.num_pages, FREE)
    states[idle] = CACHED
    for place, request in enumerate(scheduler.running):
        pages = np.array(request.pages, np.int64)
        states[pages] = np.where(states[pages] >= SHARED, SHARED, FIRST_OWNER + place)
    return states


def _cells(states: np.ndarray, pages_per_cell: int) -> np.ndarray:
    """int64, the state that most pages of each cell have; of equally many the highest. Pages in use outdo those that are not."""
    kinds = int(states.max()) + 1
    runs, lengths = np.unique(np.arange(len(states)) // pages_per_cell * kinds + states, return_counts=True)
    lengths[runs % kinds >= SHARED] += pages_per_cell  # a small request must not be invisible in a large pool
    rising = np.argsort(lengths, kind="stable")  # where one index is assigned several times, the last one stays
    cells = np.zeros(-(-len(states) // pages_per_cell), np.int64)
    cells[runs[rising] // kinds] = runs[rising] % kinds
    return cells
