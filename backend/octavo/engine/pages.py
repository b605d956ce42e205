"""``PagePool``: who holds which page of the KV cache. Knows page numbers and prefix keys, no request, no token and no memory."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence


class PagePool:
    """Takes and gives pages in O(1).

    Every page is in exactly one of three places:
    - *held*: ``refs`` > 0, by one request, or by several that share a prefix;
    - *idle*: free, and still holding a prefix that a key names; handed out again least recently given first;
    - *blank*: free, and holding nothing of worth; handed out before any idle page.
    A key names at most one page and a page bears at most one key.
    """

    def __init__(self, num_pages: int) -> None:
        """All pages, ``0 .. num_pages - 1``, start blank."""
        self.num_pages = num_pages
        self.refs = [0] * num_pages
        self._blank = list(range(num_pages - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._key_of: dict[int, bytes] = {}
        self._page_of: dict[bytes, int] = {}

    @property
    def available(self) -> int:
        """How many pages can be taken."""
        return len(self._blank) + len(self._idle)

    @property
    def used(self) -> int:
        """How many pages are held."""
        return self.num_pages - self.available

    @property
    def idle(self) -> list[int]:
        """The free pages that still hold a prefix, least recently given first."""
        return list(self._idle)

    def take(self, count: int) -> list[int]:
        """``count`` pages, each held once. The caller has checked ``available``."""
        return [self._take_one() for _ in range(count)]

    def _take_one(self) -> int:
        if self._blank:
            page = self._blank.pop()
        else:
            page, _ = self._idle.popitem(last=False)
            del self._page_of[self._key_of.pop(page)]
        self.refs[page] = 1
        return page

    def give(self, pages: Sequence[int]) -> None:
        """Let go of a request's pages, in its order. The last ones go first, so that a prefix is forgotten from its end."""
        for page in reversed(pages):
            self.refs[page] -= 1
            if self.refs[page]:
                continue
            if page in self._key_of:
                self._idle[page] = None
            else:
                self._blank.append(page)

    def find(self, keys: Iterable[bytes]) -> list[int]:
        """The pages of the longest known prefix: one per leading key that is known."""
        pages = []
        for key in keys:
            page = self._page_of.get(key)
            if page is None:
                break
            pages.append(page)
        return pages

    def count_idle(self, pages: Iterable[int]) -> int:
        """How many of ``pages`` are free; sharing those makes as many fewer available."""
        return sum(self.refs[page] == 0 for page in pages)

    def share(self, pages: Iterable[int]) -> None:
        """Hold each of these found pages once more."""
        for page in pages:
            if self.refs[page] == 0:
                del self._idle[page]
            self.refs[page] += 1

    def remember(self, page: int, key: bytes) -> None:
        """From now on ``key`` finds this held page, unless it already finds another with the same content."""
        if key not in self._page_of:
            self._page_of[key] = page
            self._key_of[page] = key

    def check_integrity(self) -> None:
        """Raise ``AssertionError`` if the class's invariants do not hold. For tests: O(pages)."""
        held = [page for page, refs in enumerate(self.refs) if refs]
        assert sorted([*held, *self._idle, *self._blank]) == list(range(self.num_pages)), "a page is lost or in two places"
        assert all(refs >= 0 for refs in self.refs), "a page was given back more often than it was held"
        assert self._page_of == {key: page for page, key in self._key_of.items()}, "keys and pages disagree"
        assert all(page in self._key_of for page in self._idle), "an idle page holds nothing"
        assert not any(page in self._key_of for page in self._blank), "a blank page bears a key"
