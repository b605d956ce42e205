"""Pages are taken and given in the order that keeps useful prefixes longest."""

import pytest

from octavo.engine.pages import PagePool


def test_every_page_can_be_taken_once() -> None:
    pool = PagePool(5)
    assert sorted(pool.take(5)) == [0, 1, 2, 3, 4]
    assert (pool.available, pool.used) == (0, 5)


def test_blank_pages_go_before_remembered_ones_and_the_least_recently_given_of_those_first() -> None:
    pool = PagePool(4)
    old, new = pool.take(1), pool.take(1)
    pool.remember(old[0], b"old")
    pool.remember(new[0], b"new")
    pool.give(old)
    pool.give(new)
    assert not set(pool.take(2)) & {old[0], new[0]}
    assert pool.take(1) == old
    assert pool.find([b"old"]) == [] and pool.find([b"new"]) == new
    pool.check_integrity()


def test_a_prefix_is_forgotten_from_its_end() -> None:
    pool = PagePool(3)
    pages = pool.take(3)
    for page, key in zip(pages, (b"a", b"b", b"c"), strict=True):
        pool.remember(page, key)
    pool.give(pages)
    pool.take(1)
    assert pool.find([b"a", b"b", b"c"]) == pages[:2]


def test_find_stops_at_the_first_unknown_key() -> None:
    pool = PagePool(3)
    pages = pool.take(2)
    pool.remember(pages[0], b"a")
    pool.remember(pages[1], b"c")
    assert pool.find([b"a", b"b", b"c"]) == pages[:1]


def test_a_shared_page_is_free_only_when_its_last_holder_gives_it() -> None:
    pool = PagePool(2)
    page = pool.take(1)
    pool.remember(page[0], b"a")
    pool.share(page)
    pool.give(page)
    assert pool.used == 1 and pool.count_idle(page) == 0
    pool.give(page)
    assert pool.used == 0 and pool.count_idle(page) == 1
    pool.share(page)
    assert pool.used == 1
    pool.check_integrity()


def test_of_two_pages_with_the_same_content_one_is_remembered() -> None:
    pool = PagePool(2)
    first, second = pool.take(2)
    pool.remember(first, b"a")
    pool.remember(second, b"a")
    assert pool.find([b"a"]) == [first]
    pool.give([second])
    pool.check_integrity()


def test_check_integrity_sees_a_page_given_twice() -> None:
    pool = PagePool(2)
    page = pool.take(1)
    pool.give(page)
    pool.give(page)
    with pytest.raises(AssertionError):
        pool.check_integrity()
