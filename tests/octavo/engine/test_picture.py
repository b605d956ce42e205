"""What a picture shows of the pool and of requests, and that it can be had of a large pool between two steps."""

import numpy as np

from octavo.engine.messages import Picture
from octavo.engine.picture import CACHED, FIRST_OWNER, FREE, MOST_CELLS, SHARED, take_picture
from octavo.engine.scheduler import Scheduler

from .fakes import FakeRunner, Pipeline, make_config, make_info, make_request

CLIENT = b"1.1"


def engine(num_pages: int, **settings: object) -> tuple[Scheduler, Pipeline]:
    """Pages of four tokens, and steps taken by hand."""
    info = make_info(num_pages, max_model_len=4 * num_pages)
    scheduler = Scheduler(make_config(max_num_batched_tokens=4 * num_pages, **settings), info)
    return scheduler, Pipeline(scheduler, FakeRunner(info))


def cells(picture: Picture) -> list[int]:
    return np.frombuffer(picture.cells, "<u2").tolist()


def test_an_untouched_pool_is_free() -> None:
    picture = take_picture(engine(16)[0], 5.0)
    assert (picture.taken_at, picture.pages_per_cell, cells(picture), picture.requests) == (5.0, 1, [FREE] * 16, [])


def test_every_page_is_shown_with_who_holds_it() -> None:
    scheduler, pipeline = engine(32)
    common = list(range(8))
    scheduler.submit(CLIENT, make_request(41, [*common, 30, 31, 32], max_tokens=9, ignore_eos=True), 1.0)
    pipeline.step(2.0)
    scheduler.submit(CLIENT, make_request(42, [*common, 20, 21, 22], max_tokens=1, ignore_eos=True), 2.0)
    scheduler.submit(CLIENT, make_request(43, [9] * 6, max_tokens=9, ignore_eos=True), 2.0)
    pipeline.step(3.0)
    picture = take_picture(scheduler, 7.0)
    assert [request.number for request in picture.requests] == [0, 2], "requests are numbered by arrival, not by a client's id"
    for place, request in enumerate(scheduler.running):
        shown = picture.requests[place]
        assert (shown.prompt_tokens, shown.pages) == (request.num_prompt, len(request.pages))
        assert all(cells(picture)[page] == FIRST_OWNER + place for page in request.pages)
    assert [request.tokens for request in picture.requests] == [13, 7]
    assert [request.seconds for request in picture.requests] == [5.0, 4.0]
    counted = {state: cells(picture).count(state) for state in set(cells(picture))}
    held = sum(len(request.pages) for request in scheduler.running)
    assert counted[FREE] + counted.get(CACHED, 0) == scheduler.pool.available == 32 - held
    assert (picture.stats.running, picture.stats.pages_used) == (2, held)


def test_a_shared_prefix_and_a_remembered_one_are_told_from_the_rest() -> None:
    scheduler, pipeline = engine(32)
    prompt = list(range(10))
    for request_id in (1, 2):
        scheduler.submit(CLIENT, make_request(request_id, prompt, max_tokens=4, ignore_eos=True), 0.0)
        pipeline.step(0.0)
    prefix = scheduler.running[0].pages[:2]
    assert scheduler.running[1].pages[:2] == prefix
    shown = cells(take_picture(scheduler, 0.0))
    assert [shown[page] for page in prefix] == [SHARED, SHARED]
    assert shown.count(SHARED) == 2
    while not scheduler.idle:
        pipeline.step(0.0)
    shown = cells(take_picture(scheduler, 0.0))
    assert [shown[page] for page in prefix] == [CACHED, CACHED]
    assert {*shown} == {FREE, CACHED}
    assert shown.count(CACHED) == take_picture(scheduler, 0.0).pages_cached > 2


def test_a_cell_of_a_large_pool_is_whose_most_of_its_used_pages_are() -> None:
    """Cells of 25 pages: the first request fills some of them, the second has a few of one that is free for the rest."""
    scheduler, pipeline = engine(100_003)
    scheduler.submit(CLIENT, make_request(1, [1] * (4 * 100), max_tokens=4, ignore_eos=True), 0.0)
    scheduler.submit(CLIENT, make_request(2, [2] * 8, max_tokens=4, ignore_eos=True), 0.0)
    pipeline.step(0.0)
    first, second = (request.pages for request in scheduler.running)
    picture = take_picture(scheduler, 0.0)
    shown = cells(picture)
    assert picture.pages_per_cell == 25
    assert len(shown) == 4001 <= MOST_CELLS
    for cell, state in enumerate(shown):
        pages = set(range(25 * cell, min(25 * cell + 25, 100_003)))
        held = {FIRST_OWNER: len(pages.intersection(first)), FIRST_OWNER + 1: len(pages.intersection(second))}
        most = max(held.values())
        assert held[state] == most if most else state == FREE
    assert {FREE, FIRST_OWNER, FIRST_OWNER + 1} <= {*shown}


def test_a_waiting_request_is_counted_and_not_shown() -> None:
    scheduler, pipeline = engine(16, max_num_seqs=1)
    for request_id in (1, 2):
        scheduler.submit(CLIENT, make_request(request_id, max_tokens=4, ignore_eos=True), 0.0)
    pipeline.step(0.0)
    picture = take_picture(scheduler, 0.0)
    assert (len(picture.requests), picture.stats.running, picture.stats.waiting) == (1, 1, 1)
