"""Which pages of the cache hold what: a radix tree of token ids, so that texts with a common beginning share it.

Knows page numbers, never arrays: it says which pages a text has, and which to copy before it is written to. Layers
come in groups by their attention window; each group numbers its pages from 0.

A page is held while a text that runs has it, cached while only the tree does, and free otherwise. A node of the tree is
one page of tokens, its children are full pages' alone; the last page of a text may be there partly filled, and whoever
goes on from it copies it first. When pages run out, those used longest ago go first: of layers that see everything only
leaves of the tree, of layers with a window any page, since what lies out of the window is not needed to go on.
"""

import bisect
import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

NONE = -1  # no page: out of the window


@dataclass(frozen=True)
class Group:
    """The layers with one window (0: they see everything)."""

    pages: int
    window: int = 0


class Copy(NamedTuple):
    """A whole page to copy to another before anything is written."""

    group: int
    source: int
    target: int


class Counts(NamedTuple):
    free: int
    cached: int
    held: int
    total: int


@dataclass(eq=False)
class Node:
    """A page of tokens that follow those of its parent, and the page of each group that holds them, or NONE."""

    ids: tuple[int, ...]
    pages: list[int]
    parent: "Node | None"
    children: list["Node"] = field(default_factory=list)
    """In the order of their ids, so that those with a common beginning are neighbours."""
    used: int = 0
    """When, on a clock of its own."""

    def path(self) -> Iterator["Node"]:
        """Up to the root, without it."""
        node = self
        while node.parent is not None:
            yield node
            node = node.parent


@dataclass(eq=False)
class Lease:
    """What one running text has."""

    pages: list[list[int]]
    """Of each group, for each page of its tokens; NONE where it is out of the window."""
    node: Node
    """As far as the tree has its full pages."""
    length: int = 0
    """Tokens whose keys and values are there."""
    copies: list[Copy] = field(default_factory=list)
    """To be made before anything is written; whoever makes them empties it."""
    depth: int = 0
    """Full pages of it that are in the tree, or would be if it shared."""
    tail: Node | None = None
    """Its own last page in the tree, partly filled."""
    over: bool = False


class Pages:
    def __init__(self, groups: Sequence[Group], page_size: int) -> None:
        self.groups, self.size = list(groups), page_size
        self.root = Node((), [], None)
        self.unused = [list(range(group.pages))[::-1] for group in groups]
        self.holders = [[0] * group.pages for group in groups]
        self.nodes: list[list[Node | None]] = [[None] * group.pages for group in groups]
        self.cached = [0] * len(self.groups)
        self.oldest: list[list[tuple[int, int, Node]]] = [[] for _ in groups]
        """Heaps of what may go; what has been used since, or is held, is passed over."""
        self.clock = itertools.count(1)
        self.order = itertools.count()

    # ---- what a text does ----

    def acquire(self, ids: Sequence[int], *, share: bool = True) -> Lease:
        """The longest beginning of a text that is there, but for its last token, whose scores nobody kept."""
        lease = Lease([[] for _ in self.groups], self.root)
        if not share:
            return lease
        path, rest = self._walk(ids[: len(ids) - 1])
        ends = [(i + 1) * self.size for i in range(len(path))]
        if rest:
            path, ends = [*path, rest[0]], [*ends, len(path) * self.size + rest[1]]
        found = self._longest(path, ends)
        if found and ends[found - 1] % self.size and not self._copied(lease, path[:found], ends[found - 1]):
            found = self._longest(path[:-1], ends[:-1])
        if not found or lease.length:
            return lease
        self._hold(lease, path[:found], ends[found - 1], ends[found - 1])
        return lease

    def reserve(self, lease: Lease, tokens: int) -> bool:
        """Pages for so many tokens in every group, old ones going for them; or False, and nothing is changed."""
        wanted = [-(-tokens // self.size) - len(pages) for pages in lease.pages]
        if any(
            count > len(unused) + cached for count, unused, cached in zip(wanted, self.unused, self.cached, strict=True)
        ):
            return False
        for group, count in enumerate(wanted):
            for _ in range(count):
                lease.pages[group].append(self._take(group))
        return True

    def written(self, lease: Lease, ids: Sequence[int], *, share: bool = True) -> None:
        """All keys and values of a text so far are there: others may find them, and what it no longer sees goes."""
        lease.length = len(ids)
        if share:
            while (lease.depth + 1) * self.size <= len(ids):
                self._index_full(lease, tuple(ids[lease.depth * self.size : (lease.depth + 1) * self.size]))
            self._index_tail(lease, tuple(ids[lease.depth * self.size : len(ids)]))
        for group, (kind, pages) in enumerate(zip(self.groups, lease.pages, strict=True)):
            if not kind.window:
                continue
            unseen = max(len(ids) - kind.window + 1, 0) // self.size
            for i in range(unseen - 1, -1, -1):
                if pages[i] == NONE:
                    break
                self._let_go(group, pages[i])
                pages[i] = NONE

    def release(self, lease: Lease) -> None:
        """A text is over. What the tree has of it stays, as what was used last."""
        assert not lease.over, "it has been released before"
        lease.over = True
        now = next(self.clock)
        for node in (*lease.node.path(), *([lease.tail] if lease.tail else ())):
            node.used = now
        for group, pages in enumerate(lease.pages):
            for page in pages:
                if page != NONE:
                    self._let_go(group, page)

    def counts(self) -> list[Counts]:
        return [
            Counts(len(unused), cached, kind.pages - len(unused) - cached, kind.pages)
            for kind, unused, cached in zip(self.groups, self.unused, self.cached, strict=True)
        ]

    def forget(self) -> None:
        """Everything that no running text has."""
        nodes = [self.root]
        for node in nodes:  # it grows: parents before children
            nodes += node.children
        for node in reversed(nodes[1:]):
            for group, page in enumerate(node.pages):
                if page != NONE and not self.holders[group][page]:
                    self._unindex(group, node)
            self._prune(node)

    # ---- finding ----

    def _walk(self, ids: Sequence[int]) -> tuple[list[Node], tuple[Node, int] | None]:
        """Nodes that the ids go through whole, and the one that has most of what follows, with how much."""
        node, path = self.root, []
        while True:
            rest = tuple(ids[len(path) * self.size : (len(path) + 1) * self.size])
            child, common = _closest(node, rest)
            if child is None:
                return path, None
            if common < self.size:
                return path, (child, common)
            path.append(child)
            node = child

    def _longest(self, path: Sequence[Node], ends: Sequence[int]) -> int:
        """How many nodes of a path to take, so that every group has all that the next token sees."""
        starts = [0] * len(self.groups)
        best = 0
        for i, (node, end) in enumerate(zip(path, ends, strict=True)):
            for group, page in enumerate(node.pages):
                if page == NONE:
                    starts[group] = i + 1
            seen = (self._first_seen(group, end) for group in range(len(self.groups)))
            if all(start <= first for start, first in zip(starts, seen, strict=True)):
                best = i + 1
        return best

    def _first_seen(self, group: int, tokens: int) -> int:
        """The first page that the token after so many sees."""
        window = self.groups[group].window
        return max(tokens - window + 1, 0) // self.size if window else 0

    def _hold(self, lease: Lease, path: Sequence[Node], length: int, seen_by: int) -> None:
        """So many tokens of a path, as far as the token of a number sees them."""
        now = next(self.clock)
        for group, pages in enumerate(lease.pages):
            first = self._first_seen(group, seen_by)
            pages += [node.pages[group] if i >= first else NONE for i, node in enumerate(path)]
            for page in pages[first:]:
                self._grip(group, page)
        for node in path:
            node.used = now
        lease.length, lease.depth = length, len(path)
        lease.node = path[-1] if path else self.root

    def _copied(self, lease: Lease, path: Sequence[Node], length: int) -> bool:
        """Hold a path whose last page is shared in part, by a copy of it; if there are pages for copies."""
        last = path[-1]
        self._hold(lease, path[:-1], length - length % self.size, length)
        sources = list(last.pages)
        for group, page in enumerate(sources):
            self._grip(group, page)  # so that it does not go for its own copy
        there = all(len(unused) + cached for unused, cached in zip(self.unused, self.cached, strict=True))
        if there:
            for group, source in enumerate(sources):
                target = self._take(group)
                lease.pages[group].append(target)
                lease.copies.append(Copy(group, source, target))
            lease.length = length
            last.used = next(self.clock)
        for group, page in enumerate(sources):
            self._let_go(group, page)
        if not there:
            for group, pages in enumerate(lease.pages):
                for page in pages:
                    if page != NONE:
                        self._let_go(group, page)
                pages.clear()
            lease.node, lease.length, lease.depth = self.root, 0, 0
        return there

    # ---- keeping ----

    def _index_full(self, lease: Lease, ids: tuple[int, ...]) -> None:
        """The next full page of a text becomes a node, or it takes the one that there is."""
        i, parent = lease.depth, lease.node
        own = [pages[i] for pages in lease.pages]
        there = next((node for node in _equal(parent, ids) if node is not lease.tail), None)
        if there is None:
            node = lease.tail or self._add(parent, ids, own)
            _rename(node, parent, ids)
        else:
            node = there
            if lease.tail:
                self._drop(lease.tail)
            for group, page in enumerate(own):
                if node.pages[group] == NONE:  # it went, and here it is again
                    node.pages[group], self.nodes[group][page] = page, node
                elif page != node.pages[group]:
                    self._grip(group, node.pages[group])
                    self._let_go(group, page)
                    lease.pages[group][i] = node.pages[group]
        lease.node, lease.tail, lease.depth = node, None, i + 1

    def _index_tail(self, lease: Lease, ids: tuple[int, ...]) -> None:
        """The last page, partly filled; not if the tree has as much already."""
        if lease.tail:
            _rename(lease.tail, lease.node, ids)
        elif ids and _closest(lease.node, ids)[1] < len(ids):
            lease.tail = self._add(lease.node, ids, [pages[lease.depth] for pages in lease.pages])

    def _add(self, parent: Node, ids: tuple[int, ...], pages: list[int]) -> Node:
        node = Node(ids, list(pages), parent, used=next(self.clock))
        bisect.insort(parent.children, node, key=_ids)
        for group, page in enumerate(pages):
            self.nodes[group][page] = node
        return node

    def _drop(self, tail: Node) -> None:
        """Out of the tree: another node has what it has. Its pages are its text's own again."""
        for group, page in enumerate(tail.pages):
            self.nodes[group][page] = None
            tail.pages[group] = NONE
        self._prune(tail)

    # ---- pages ----

    def _grip(self, group: int, page: int) -> None:
        if not self.holders[group][page]:
            self.cached[group] -= 1
        self.holders[group][page] += 1

    def _let_go(self, group: int, page: int) -> None:
        """One text less has it: with the last, it is cached or free."""
        self.holders[group][page] -= 1
        if self.holders[group][page]:
            return
        node = self.nodes[group][page]
        if node is None:
            self.unused[group].append(page)
        else:
            self.cached[group] += 1
            self._may_go(group, node)

    def _may_go(self, group: int, node: Node) -> None:
        if self.groups[group].window or not node.children:
            heapq.heappush(self.oldest[group], (node.used, next(self.order), node))

    def _take(self, group: int) -> int:
        """A free page, or the cached one that was used longest ago. There is one."""
        while not self.unused[group]:
            used, _, node = heapq.heappop(self.oldest[group])
            page = node.pages[group]
            stale = page == NONE or self.holders[group][page] or self.nodes[group][page] is not node
            if stale or (node.children and not self.groups[group].window):
                continue
            if used != node.used:
                self._may_go(group, node)
                continue
            if self.groups[group].window:
                self._unindex(group, node)
            else:
                for other, held in enumerate(node.pages):
                    if held != NONE:
                        self._unindex(other, node)
            self._prune(node)
        page = self.unused[group].pop()
        self.holders[group][page] = 1
        return page

    def _unindex(self, group: int, node: Node) -> None:
        page = node.pages[group]
        node.pages[group], self.nodes[group][page] = NONE, None
        if not self.holders[group][page]:
            self.cached[group] -= 1
            self.unused[group].append(page)

    def _prune(self, node: Node) -> None:
        """Nodes without pages and children leave the tree; a parent that is a leaf now may go in its turn."""
        while node.parent is not None and not node.children and all(page == NONE for page in node.pages):
            parent = node.parent
            _remove(node, parent)
            node.parent = None
            node = parent
        if node.parent is not None and not node.children:
            for group, page in enumerate(node.pages):
                if page != NONE and not self.groups[group].window and not self.holders[group][page]:
                    self._may_go(group, node)


def _ids(node: Node) -> tuple[int, ...]:
    return node.ids


def _closest(node: Node, ids: tuple[int, ...]) -> tuple[Node | None, int]:
    """The child that has most of the ids at its beginning, and how many: in their order it is next to them."""
    at = bisect.bisect_left(node.children, ids, key=_ids)
    best, most = None, 0
    for child in node.children[max(at - 1, 0) : at + 1]:
        common = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(child.ids, ids, strict=False)))
        if common > most:
            best, most = child, common
    return best, most


def _equal(parent: Node, ids: tuple[int, ...]) -> list[Node]:
    first, last = (find(parent.children, ids, key=_ids) for find in (bisect.bisect_left, bisect.bisect_right))
    return parent.children[first:last]


def _remove(node: Node, parent: Node) -> None:
    """From among its parent's children."""
    siblings = parent.children
    first = bisect.bisect_left(siblings, node.ids, key=_ids)
    del siblings[next(i for i in range(first, len(siblings)) if siblings[i] is node)]


def _rename(node: Node, parent: Node, ids: tuple[int, ...]) -> None:
    """It has more tokens now, which may change its place among its siblings."""
    _remove(node, parent)
    node.ids = ids
    bisect.insort(parent.children, node, key=_ids)
