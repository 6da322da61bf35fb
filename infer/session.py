"""One buffer of an editor, as it is typed in: prompts that stay what they are but for what was typed.

The engine keeps the keys and values of every token that begins a prompt as an earlier one began. So a keystroke should
add to the end of the prompt, and change nothing before:

- The window: of a file too long for the context, the part that is read is chosen with room to type, and kept until the
  cursor leaves it or the room is used up.
- Suffix first (SPM): what is typed is at the end of the prompt as it is.
- Prefix first (PSM): the prefix ends at an anchor, the beginning of the line where typing began, and what was typed
  since goes after the middle sentinel, as the beginning of the middle. When the cursor rests or goes elsewhere, and
  when what is before the anchor changes, there is a new one.
- Token healing takes the last tokens out of the prompt: those which the next keystroke would change are not in it.
- Typing what was suggested calls no model: the rest of the suggestion is the answer, also while it is being written.
- Other files keep the order in which they first came.

One client at a time. A new completion cancels the one before.
"""

import functools
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from codelm import formats
from codelm.cursor import window
from codelm.errors import UserError
from codelm.format_table import Mode
from codelm.formats import File, Rendered, Repository, Role
from codelm.tokenizer import Tokenizer
from infer.answer import Answer, Suggestion
from infer.engine import Engine
from infer.healing import Healing, heal
from infer.prompts import family_of, tokenizer_of
from infer.request import Drafts, Priority, Request
from infer.sampling import Sampling

SLACK = 0.75  # how much of the room a new window fills: the rest is for typing
LONGEST_LINE = 2000  # characters from the anchor to the cursor; more, and there is a new anchor
REMEMBERED = 8  # texts that were accepted, to look for drafts in
CHARACTERS = 32  # of a token at most, where it is to be told how much text can be of use


class Session:
    def __init__(
        self,
        engine: Engine,
        text: str = "",
        *,
        path: str | None = None,
        mode: Mode | None = None,
        family: str = "",
        anchored: bool = True,
        healed: bool = True,
    ) -> None:
        """With `anchored` False, prompts are those that `lm.infill` makes, but for the window."""
        self.engine, self.text, self.path, self.mode = engine, text, path, mode
        self.tokenizer, self.family = tokenizer_of(engine.lm), family_of(engine.lm, family)
        self.encoder = _Remembering(self.tokenizer)
        self.ends = formats.stop_ids(self.family, self.tokenizer, "fim")
        self.healed = healed
        self.prefix_first = anchored and (mode or next(iter(self.family.fim))) == "psm"
        self.files: list[File] = []
        self.start, self.end = 0, len(text)
        """Of the window, in characters."""
        self.anchor: int | None = None
        self.typed_to: int | None = None
        """Where the cursor is if nothing but typing happened."""
        self.last: tuple[Suggestion, str, str] | None = None
        """What was suggested, and the text before and after it then."""
        self.recent: deque[list[int]] = deque(maxlen=REMEMBERED)

    # ---- what happens in the editor ----

    def edit(self, start: int, end: int, text: str) -> None:
        """The characters from start to end were replaced."""
        if not 0 <= start <= end <= len(self.text):
            raise UserError(
                f"an edit of characters {start} to {end} is outside the buffer of {len(self.text):,}: send the whole "
                "text again"
            )
        self.text = self.text[:start] + text + self.text[end:]
        added = len(text) - (end - start)
        if end <= self.start and self.start:
            self.start, self.end = self.start + added, self.end + added
        elif start <= self.end:
            self.start, self.end = min(self.start, start), max(self.end, end) + added
        if self.anchor is not None and (start < self.anchor or self.typed_to not in (start, end)):
            self.anchor = None
        self.typed_to = start + len(text)

    def set_files(self, files: Sequence[File]) -> None:
        """Other files to read before this one, the most useful last where they are new."""
        if files and self.path is None:
            raise UserError("other files need the path of this one beside them: give the session a path")
        given = {file.path: file for file in files}
        kept = [given.pop(file.path) for file in self.files if file.path in given]
        self.files = [*kept, *given.values()]

    def complete(
        self,
        cursor: int,
        max_new_tokens: int = 64,
        *,
        sampling: Mapping[str, Any] | None = None,
        seed: int = 0,
        stop: Sequence[str] = (),
        priority: Priority = "interactive",
    ) -> Answer:
        """What belongs at the cursor, a number of characters."""
        if answer := self._suggested_before(cursor):
            return answer
        self.cancel()
        suggestion = self._ask(cursor, max_new_tokens, Sampling(**sampling or {}), seed, stop, priority)
        self.last = suggestion, self.text[:cursor], self.text[cursor:]
        return Answer(suggestion, 0, called=True)

    def accept(self, cursor: int, text: str, *, ahead: int = 0) -> int:
        """A suggestion was taken: the text is put at the cursor, which is then behind it. With `ahead`, so many tokens
        of what comes next are begun at once: the next completion there finds them."""
        self.edit(cursor, cursor, text)
        self.recent.append(self.tokenizer.encode(text))
        if ahead:
            self.complete(cursor + len(text), ahead)
        return cursor + len(text)

    def rest(self, cursor: int) -> None:
        """The cursor rests: read its surroundings, so that the next keystroke finds them read, with a new anchor."""
        self.anchor = None
        suggestion = self._ask(cursor, 1, Sampling(), priority="batch")
        while not suggestion.finish:
            suggestion.wait()

    def cancel(self) -> None:
        """What was asked last is not wanted any more."""
        if self.last:
            self.last[0].stream.cancel()
        self.last = None

    # ---- prompts ----

    def _ask(
        self,
        cursor: int,
        max_new_tokens: int,
        sampling: Sampling,
        seed: int = 0,
        stop: Sequence[str] = (),
        priority: Priority = "interactive",
    ) -> Suggestion:
        if not 0 <= cursor <= len(self.text):
            raise UserError(f"a cursor at {cursor} is outside the buffer of {len(self.text):,} characters")
        prompt = self._prompt(cursor, max_new_tokens)
        ids, healing = self._healed(prompt)
        taken = len(prompt.ids) - len(ids)  # it is written again, and does not count
        after = [i for i, role in zip(prompt.ids, prompt.roles, strict=True) if role in (Role.PREFIX, Role.TEXT)]
        drafts = Drafts(tuple(self.recent), after=after[: len(after) - taken])
        request = Request(
            ids,
            max_new_tokens + taken,
            sampling,
            seed,
            stop_ids=self.ends,
            stop=stop,
            priority=priority,
            restriction=healing,
            drafts=drafts,
        )
        return Suggestion(self.engine.submit(request))

    def _suggested_before(self, cursor: int) -> Answer | None:
        """The rest of the last suggestion, if all that happened is that its beginning was typed."""
        if self.last is None:
            return None
        suggestion, before, after = self.last
        typed = self.text[len(before) : cursor]
        if cursor < len(before) or self.text[cursor:] != after or not self.text.startswith(before):
            return None
        suggestion.catch_up()
        going_on = not suggestion.finish or len(typed) < len(suggestion.text)
        good = suggestion.finish not in ("cancelled", "deadline", "error")
        right = good and going_on and suggestion.text.startswith(typed)
        return Answer(suggestion, len(typed), called=False) if right else None

    def _prompt(self, cursor: int, new: int) -> Rendered:
        room = self.engine.context - new
        self._place_anchor(cursor)
        inside = self.start <= cursor <= self.end
        prompt = self._rendered(cursor) if inside and self.end - self.start <= CHARACTERS * room else None
        if prompt is None or len(prompt.ids) > room:
            self._place_window(cursor, room)
            prompt = self._rendered(cursor)
        if len(prompt.ids) > room:
            raise UserError(f"a context with room for {room:,} tokens has none for text around the cursor")
        return prompt

    def _place_anchor(self, cursor: int) -> None:
        if not self.prefix_first:
            return
        stays = self.anchor is not None and self.anchor <= cursor <= self.anchor + LONGEST_LINE
        if not stays or cursor != self.typed_to:
            self.anchor, self.typed_to = self.text.rfind("\n", 0, cursor) + 1, cursor

    def _rendered(self, cursor: int) -> Rendered:
        repo = Repository(self.files) if self.files else None
        before = min(max(self.anchor, self.start), cursor) if self.anchor is not None else cursor
        prefix, suffix = self.text[self.start : before], self.text[cursor : self.end]
        prompt = formats.fim(self.family, self.encoder, prefix, suffix, mode=self.mode, path=self.path, repo=repo)
        typed = self.tokenizer.encode(self.text[before:cursor])
        return Rendered(prompt.ids + typed, prompt.roles + [Role.TEXT] * len(typed))

    def _place_window(self, cursor: int, room: int) -> None:
        """What is nearest to the cursor, in whole lines before it."""
        self.start, self.end = cursor, cursor
        while len(frame := self._rendered(cursor).ids) >= room * SLACK and self.files:
            self.files = self.files[:-1]
        far = CHARACTERS * room
        before = self.tokenizer.encode(self.text[max(cursor - far, 0) : cursor])
        after = self.tokenizer.encode(self.text[cursor : cursor + far])
        kept = window(len(before), len(after), int(SLACK * room) - len(frame))
        start = cursor - len(self.tokenizer.decode(before[len(before) - kept[0] :]))
        if start:
            start = min(self.text.find("\n", start) + 1 or cursor, cursor)
        self.start, self.end = start, cursor + len(self.tokenizer.decode(after[: kept[1]]))

    def _healed(self, prompt: Rendered) -> tuple[list[int], Healing | None]:
        """Nothing is healed where a new line has just begun: the anchor is where its text is parted anyway."""
        begins = self.prefix_first and prompt.roles[-1] is not Role.TEXT
        return (prompt.ids, None) if begins or not self.healed else heal(self.tokenizer, prompt, suffix=False)


class _Remembering:
    """Encodes, and remembers a few texts: the suffix stays what it was from key to key, and other files do."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.special = tokenizer.special
        self._encode = functools.lru_cache(maxsize=16)(tokenizer.encode)

    def encode(self, text: str) -> list[int]:
        return self._encode(text)


class Sessions:
    """Those of several buffers, by name; of too many, the one that was used longest ago goes."""

    def __init__(self, engine: Engine, most: int = 256) -> None:
        self.engine, self.most = engine, most
        self.open_: dict[str, Session] = {}
        self.lock = threading.Lock()

    def open(self, name: str, text: str, **options: Any) -> Session:
        """A new one, in the place of any with this name."""
        session = Session(self.engine, text, **options)
        with self.lock:
            if old := self.open_.pop(name, None):
                old.cancel()
            self.open_[name] = session
            while len(self.open_) > self.most:
                self.open_.pop(next(iter(self.open_))).cancel()
        return session

    def get(self, name: str) -> Session:
        with self.lock:
            if name not in self.open_:
                raise UserError(f"unknown session {name!r}: open it with the whole text of its buffer")
            self.open_[name] = self.open_.pop(name)
            return self.open_[name]

    def close(self, name: str) -> None:
        session = self.get(name)
        session.cancel()
        with self.lock:
            self.open_.pop(name, None)
