"""The cache's bookkeeping against a plain model of what each slot of each page contains."""

import random
from dataclasses import dataclass, field

import pytest

from infer.pages import NONE, Group, Lease, Pages

WINDOWS = ((0,), (5,), (0, 5), (0, 3, 9))


@dataclass
class Text:
    """One running text, and how far its cache is written."""

    lease: Lease
    ids: list[int]
    share: bool
    limit: int


@dataclass
class World:
    """Pages, and beside them what they would contain: for each slot the whole text up to its token."""

    windows: tuple[int, ...]
    pages: int
    size: int
    seed: int
    texts: list[Text] = field(default_factory=list)
    copied: int = 0
    shared: int = 0
    refused: int = 0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.book = Pages([Group(self.pages, window) for window in self.windows], self.size)
        self.slots: list[dict[tuple[int, int], tuple[int, ...]]] = [{} for _ in self.windows]

    def step(self) -> None:
        if not self.texts or (len(self.texts) < 3 and self.rng.random() < 0.3):
            self.begin()
        else:
            text = self.rng.choice(self.texts)
            if text.lease.length >= text.limit or self.rng.random() < 0.15:
                self.end(text)
            else:
                self.go_on(text)
        if self.rng.random() < 0.01:
            self.book.forget()
        self.check()

    def begin(self) -> None:
        ids = [self.rng.randrange(2) for _ in range(self.rng.randrange(1, 22))]
        if self.rng.random() < 0.7:  # beginnings that many have
            ids = [0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 1][: self.rng.randrange(13)] + ids
        share = self.rng.random() < 0.9
        expected = self.longest(ids) if share else 0
        lease = self.book.acquire(ids, share=share)
        assert lease.length <= expected
        if lease.length < expected:  # only where there was no page for a copy
            assert lease.length == expected - expected % self.size or self.no_page_left()
        self.copied += len(lease.copies)
        self.shared += lease.length
        for group, source, target in lease.copies:
            for offset in range(self.size):
                self.slots[group][target, offset] = self.slots[group].get((source, offset), ())
        lease.copies.clear()
        self.texts.append(Text(lease, ids, share, len(ids) + self.rng.randrange(6)))

    def go_on(self, text: Text) -> None:
        count = self.rng.randrange(1, 7)
        end = min(text.lease.length + count, text.limit)
        before = [list(pages) for pages in text.lease.pages], self.book.counts()
        if not self.book.reserve(text.lease, end):
            assert ([list(pages) for pages in text.lease.pages], self.book.counts()) == before
            self.refused += 1
            self.end(self.rng.choice(self.texts))
            return
        while len(text.ids) < end:
            text.ids.append(self.rng.randrange(2))
        for position in range(text.lease.length, end):
            for group, pages in enumerate(text.lease.pages):
                at = pages[position // self.size], position % self.size
                assert at[0] != NONE
                self.slots[group][at] = tuple(text.ids[: position + 1])
        self.book.written(text.lease, text.ids[:end], share=text.share)

    def end(self, text: Text) -> None:
        self.book.release(text.lease)
        self.texts.remove(text)

    def longest(self, ids: list[int]) -> int:
        """The longest beginning of which the tree knows pages, in every group, for all that the next token sees."""
        known = {}
        nodes = [self.book.root]
        for node in nodes:
            nodes += node.children
            for group, page in enumerate(node.pages):
                for offset in range(len(node.ids)):
                    if page != NONE:
                        known.setdefault((group, self.slots[group][page, offset]), True)
        for n in range(len(ids) - 1, 0, -1):
            seen = [
                range(max(n - window + 1, 0) // self.size * self.size if window else 0, n) for window in self.windows
            ]
            if all((g, tuple(ids[: at + 1])) in known for g, positions in enumerate(seen) for at in positions):
                return n
        return 0

    def no_page_left(self) -> bool:
        return any(not count.free and not count.cached for count in self.book.counts()) or self.pages < 12

    def check(self) -> None:
        """What each text sees is its own beginning, and every page is counted once."""
        for text in self.texts:
            for group, (window, pages) in enumerate(zip(self.windows, text.lease.pages, strict=True)):
                first = max(text.lease.length - window + 1, 0) if window else 0
                for position in range(first, text.lease.length):
                    page = pages[position // self.size]
                    assert page != NONE
                    assert self.slots[group][page, position % self.size] == tuple(text.ids[: position + 1])
        held = [
            {page for text in self.texts for page in text.lease.pages[g] if page != NONE}
            for g in range(len(self.windows))
        ]
        for mine, count in zip(held, self.book.counts(), strict=True):
            assert count.held == len(mine)
            assert count.free + count.cached + count.held == count.total == self.pages


@pytest.mark.parametrize("windows", WINDOWS)
@pytest.mark.parametrize("pages", [9, 14, 60])
def test_every_text_finds_its_own_beginning_and_no_page_is_lost(windows: tuple[int, ...], pages: int) -> None:
    copied = shared = refused = 0
    for seed in range(15):
        world = World(windows, pages, size=4, seed=seed)
        for _ in range(150):
            world.step()
        copied, shared, refused = copied + world.copied, shared + world.shared, refused + world.refused
        for text in list(world.texts):
            world.end(text)
        assert all(not count.held for count in world.book.counts())
        world.book.forget()
        assert all(count.free == count.total for count in world.book.counts())
    assert copied > 20
    assert shared > 200
    assert refused > (20 if pages == 9 and 0 in windows else -1)


def fill(book: Pages, ids: list[int]) -> None:
    lease = book.acquire(ids)
    lease.copies.clear()
    assert book.reserve(lease, len(ids))
    book.written(lease, ids)
    book.release(lease)


def cached(book: Pages, ids: list[int]) -> int:
    """Tokens of a text that are there, without leaving a trace but its use."""
    lease = book.acquire([*ids, 0])
    lease.copies.clear()
    book.release(lease)
    return lease.length


def test_what_was_used_longest_ago_goes_first() -> None:
    book = Pages([Group(6)], 4)
    a, b, c = ([n] * 8 for n in (1, 2, 3))
    for ids in (a, b, c):
        fill(book, ids)
    assert cached(book, a) == 8  # used just now
    fill(book, [4] * 8)
    assert [cached(book, ids) for ids in (a, b, c)] == [8, 0, 8]


def test_texts_that_part_within_a_page_share_up_to_there() -> None:
    book = Pages([Group(10)], 4)
    fill(book, [1, 2, 3, 4, 5, 6, 7, 8])
    lease = book.acquire([1, 2, 3, 4, 5, 6, 9, 9, 9])
    assert lease.length == 6
    assert [(copy.source != copy.target) for copy in lease.copies] == [True]


def test_a_text_in_a_window_holds_no_more_than_that() -> None:
    book = Pages([Group(40, window=6)], 4)
    ids = list(range(100))
    lease = book.acquire(ids)
    for end in range(5, 100, 5):
        assert book.reserve(lease, end)
        book.written(lease, ids[:end])
        assert book.counts()[0].held <= 3


def test_releasing_twice_is_an_error() -> None:
    book = Pages([Group(4)], 4)
    lease = book.acquire([1, 2])
    book.release(lease)
    with pytest.raises(AssertionError):
        book.release(lease)
