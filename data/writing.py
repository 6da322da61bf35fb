"""How a segment is written: which files of it get a hole, whether paths are said, and what fits.

A pure function of the segment and a random generator. What a row has set aside for a segment is kept: a hole that comes
out longer is cut elsewhere, and after a few tries left out, which is counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from codelm import formats
from codelm.cursor import window
from codelm.data_config import DataConfig
from codelm.format_table import Family, Slot
from codelm.formats import File, Hole, Repository
from codelm.tokenizer import Tokenizer
from data.fim import Digger, Dug
from data.spans import NoSpan
from data.token_store import TokenStore

_TRIES = 4
_SLACK = 2  # tokens that cutting a text in three mostly adds to it
_SEVERAL = 3  # holes that are sure to fit where there may be several


@dataclass(frozen=True)
class Overhead:
    """Positions of a row that are not text: of each segment, of a hole, between two files without paths."""

    segment: int
    hole: int
    separator: int


Part = tuple[int, int, int]  # a document, and which tokens of it: from, to


@dataclass(frozen=True)
class HoleMade:
    """How a hole came about, or without a mode, why there is none."""

    mode: str
    chooser: str
    fallback: str
    """Why another chooser than the one drawn, `drawn:why`; or why there is no hole."""


@dataclass(frozen=True)
class Written:
    """Tokens that stand in a row as one document, and where they are from."""

    ids: Sequence[int]
    roles: Sequence[int]
    files: tuple[Part, ...]
    holes: tuple[HoleMade, ...] = ()
    ahead: bool = False
    """The last token is the first of the next segment: here it is learnt, there it is read."""

    @property
    def positions(self) -> int:
        """Of a row: every token but the last is read, every one but the first is learnt."""
        return len(self.ids) - 1


def overhead(family: Family, tokenizer: Tokenizer, data: DataConfig) -> Overhead:
    """Positions to set aside for what is not text."""
    hole = 0
    if data.fim.rate and family.fim:
        sentinels = max(sum(isinstance(part, str) for part in parts) for parts in family.fim.values()) - 1
        several = 3 * _SEVERAL if data.fim.spans.several else 0
        hole = max(sentinels, several) + _SLACK
    if family.repository is None:
        return Overhead(len(family.start), hole, 0)
    one, two = (len(formats.repository(family, tokenizer, "", [File(None, [0])] * count).ids) for count in (1, 2))
    return Overhead(len(family.start), hole, two - one - 1)


@dataclass(frozen=True)
class Writer:
    """Writes the segments of one source."""

    store: TokenStore
    tokenizer: Tokenizer
    family: Family
    level: str
    data: DataConfig

    def write(self, parts: Sequence[Part], room: int, complete: bool, rng: np.random.Generator) -> list[Written]:
        """One document, or up to three where context is cut off around a hole; in at most `room` positions."""
        if self.level == "chat":
            return [self._conversation(*parts[0])]
        named = self.family.repository is not None and rng.random() < self.data.metadata
        chosen = self._chosen(len(parts), rng)
        for _ in range(_TRIES if chosen else 0):
            written = self._with_holes(parts, chosen, named, complete, rng)
            positions = [document.positions for document in written]
            if sum(positions) <= room and min(positions) > 0:
                return written
        holes = (HoleMade("", "", "does_not_fit"),) if chosen else ()
        plain = self._repository(parts, {}, named, complete)
        if named and plain.positions > room:  # a path longer than was set aside
            plain = self._repository(parts, {}, False, complete)
        return [replace(plain, holes=holes)]

    def _conversation(self, document: int, start: int, stop: int) -> Written:
        ids, roles = self.store.tokens(document, start, stop), self.store.roles(document, start, stop)
        return Written(ids.tolist(), roles.tolist(), ((document, start, stop),))

    def _chosen(self, files: int, rng: np.random.Generator) -> list[int]:
        """Which files get a hole."""
        rate = self.data.fim.rate if self.family.fim else 0.0
        if self._each:
            return np.flatnonzero(rng.random(files) < rate).tolist()
        return [files - 1] if rng.random() < rate else []

    @property
    def _each(self) -> bool:
        return self.level == "repository" and self.data.fim.repository == "each"

    def _with_holes(
        self, parts: Sequence[Part], chosen: list[int], named: bool, complete: bool, rng: np.random.Generator
    ) -> list[Written]:
        most = 1 if self._each or self.family.several is None else len(self.family.several.masks)
        dug = {n: self._digger.dig(self._text(*parts[n]), self._language(parts[n]), rng, most) for n in chosen}
        made = tuple(_made(found) for found in dug.values())
        holes = {n: found for n, found in dug.items() if isinstance(found, Dug)}
        if self.family.repository is not None and any(hole.chooser == "causal" for hole in holes.values()):
            named = True
        if holes and not self._each:
            return self._last(parts, holes[len(parts) - 1], made, named, complete)
        return [replace(self._repository(parts, holes, named, complete), holes=made)]

    def _repository(self, parts: Sequence[Part], holes: Mapping[int, Dug], named: bool, complete: bool) -> Written:
        """Files one after the other, any of them with a hole; one without a path is just its text."""
        ends = complete or len(parts) - 1 in holes
        document, start, stop = parts[-1]
        ahead = not ends and stop < int(self.store.documents["tokens"][document])
        read = [*parts[:-1], (document, start, stop + ahead)]
        if self.level == "file" and not named and not holes:
            rendered = formats.text(self.family, self.tokenizer, self._ids(read[0]), end=ends)
            return Written(rendered.ids, rendered.roles, tuple(parts), ahead=ahead)
        files = [
            File(self._path(part, named), _hole(holes[n]) if n in holes else self._ids(part))
            for n, part in enumerate(read)
        ]
        rendered = formats.repository(self.family, self.tokenizer, self._name(parts, named), files, end=ends)
        return Written(rendered.ids, rendered.roles, tuple(parts), ahead=ahead)

    def _last(
        self, parts: Sequence[Part], dug: Dug, made: tuple[HoleMade, ...], named: bool, complete: bool
    ) -> list[Written]:
        """The last file with its hole behind the others, as a request would have it."""
        around = (dug.parts[0], dug.parts[-1])
        head, tail = "", ""
        if dug.chooser == "causal" and self.data.fim.causal_context and len(parts) == 1:
            around, head, tail = self._windowed(*around)
        files = [File(self._path(part, named), self._ids(part)) for part in parts[:-1]]
        path, repo = self._path(parts[-1], named), Repository(files, self._name(parts, named))
        alone = None if not named and not files else repo
        write = (self.family, self.tokenizer)
        if dug.mode == "several":
            document = formats.fim_several(*write, dug.parts, dug.middles, path=path, repo=alone)
        else:
            document = formats.fim(*write, *around, *dug.middles, mode=dug.mode, path=path, repo=alone)
        before = [formats.text(self.family, self.tokenizer, head)] if head else []
        after = [formats.text(self.family, self.tokenizer, tail, end=complete)] if tail else []
        written = [(rendered, ()) for rendered in before] + [(document, made)] + [(rendered, ()) for rendered in after]
        return [Written(rendered.ids, rendered.roles, tuple(parts), holes) for rendered, holes in written]

    def _windowed(self, prefix: str, suffix: str) -> tuple[tuple[str, str], str, str]:
        """What of prefix and suffix a request of `causal_context` tokens would hold, and what is cut off them."""
        before, after = self.tokenizer.encode(prefix), self.tokenizer.encode(suffix)
        kept, ahead = window(len(before), len(after), self.data.fim.causal_context)
        head = self._leading(before, len(before) - kept)
        stays = self._leading(after, ahead) if ahead < len(after) else suffix
        return (prefix[len(head) :], stays), head, suffix[len(stays) :]

    def _leading(self, ids: list[int], count: int) -> str:
        """The text of the first tokens, up to a whole character; none of a single one, which would be no document."""
        starts = self.store.character_starts
        while 0 < count < len(ids) and not starts[ids[count]]:
            count -= 1
        return self.tokenizer.decode(ids[:count]) if count > 1 else ""

    # ---- what is known of a part ----

    @cached_property
    def _digger(self) -> Digger:
        return Digger(self.data.fim, self.family, self.tokenizer)

    def _ids(self, part: Part) -> list[int]:
        return self.store.tokens(*part).tolist()

    def _text(self, document: int, start: int, stop: int) -> str:
        text = self.tokenizer.decode(self._ids((document, start, stop)))
        leads = start == 0 and Slot.LEAD in self.family.text
        return text.removeprefix(" ") if leads else text

    def _language(self, part: Part) -> str:
        return self.store.languages[int(self.store.documents["language"][part[0]])]

    def _path(self, part: Part, named: bool) -> str | None:
        return self.store.names(part[0]).path if named else None

    def _name(self, parts: Sequence[Part], named: bool) -> str:
        return self.store.names(parts[0][0]).repository if named else ""


def _made(found: Dug | NoSpan) -> HoleMade:
    return (
        HoleMade("", "", found.why)
        if isinstance(found, NoSpan)
        else HoleMade(found.mode, found.chooser, found.fallback)
    )


def _hole(dug: Dug) -> Hole:
    assert dug.mode != "several"
    return Hole(dug.parts[0], dug.middles[0], dug.parts[1], dug.mode)
