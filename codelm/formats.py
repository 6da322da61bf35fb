"""Text parts to token ids in a family's prompt format. Training data and serving requests both come from here.

Special tokens go in by id and text goes through `Tokenizer.encode`, which never yields one: no text can pretend to be a
sentinel. The formats themselves are rows in `codelm.format_table`. This module knows no model and no jax.

>>> fim(family("codelm"), tokenizer, "def f(", "): ...").ids                # a prompt: ends where the middle begins
>>> fim(family("codelm"), tokenizer, "def f(", "): ...", middle="x").ids    # a training document
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, NamedTuple, Protocol

from codelm.errors import UserError, nearest
from codelm.format_table import FAMILIES, ChatLayout, Family, Mode, Part, Parts, Plain, RepositoryLayout, Slot

__all__ = ["FAMILIES", "Family", "File", "Hole", "Message", "Mode", "Rendered", "Repository", "Role", "Surface", "Text"]
__all__ += ["chat", "family", "family_of", "fim", "fim_several", "repository", "stop_ids", "text"]

Surface = Literal["fim", "chat", "text"]


class Role(IntEnum):
    """What a token is for. Training weighs the loss by it, `data show` colours by it."""

    SENTINEL = 0  # a special token that the model is given
    PREFIX = 1
    SUFFIX = 2
    MIDDLE = 3  # the middle and the token that ends it: what the model writes
    CONTEXT = 4  # names, paths, and the other files around a FIM document
    TEXT = 5  # text from left to right
    PROMPT = 6  # what the user, the system and the tools say
    ASSISTANT = 7  # a reply and the token that ends it: what the model writes


class TextEncoder(Protocol):
    """What rendering needs of a tokenizer."""

    @property
    def special(self) -> Mapping[str, int]: ...
    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True)
class Rendered:
    """Token ids, and what each of them is."""

    ids: list[int]
    roles: list[Role]


# Text, or the ids of one that was encoded before: those are taken as they are, never encoded together with a neighbour.
Text = str | Sequence[int]


@dataclass(frozen=True)
class Hole:
    """A text with a hole, and what fills it."""

    prefix: str
    middle: str
    suffix: str
    mode: Mode | None = None
    """None is the family's default."""


@dataclass(frozen=True)
class File:
    path: str | None
    """None: it is not said, and only tokens of the format part the file from others."""
    text: Text | Hole


@dataclass(frozen=True)
class Repository:
    """Files that come before the one in question. The name is used where the format has a place for it."""

    files: Sequence[File] = ()
    name: str = ""


@dataclass(frozen=True)
class Message:
    """One turn of a chat: system, user, assistant or tool."""

    role: str
    content: str
    tool_calls: Sequence[str] = ()
    """Calls that an assistant makes after its content, each as the text between the call tokens."""


class _Piece(NamedTuple):
    """A special token by name, a text, or a space that goes before the text that follows it, if any does."""

    role: Role
    text: Text
    kind: Literal["special", "text", "lead"] = "text"


_Values = Mapping[Slot, Sequence[_Piece]]


def family(name: str) -> Family:
    """The family called `name`."""
    if name not in FAMILIES:
        hint = nearest(name, list(FAMILIES))
        raise UserError(f"unknown model family {name!r}: did you mean {hint}? Known: {', '.join(FAMILIES)}")
    return FAMILIES[name]


def family_of(tokenizer: TextEncoder) -> Family | None:
    """The family with a fill-in-the-middle format whose special tokens a tokenizer has.

    Several share their sentinels: of those, the one of whose tokens the largest share is there.
    """

    def has(name: str) -> bool:
        return _find_special(tokenizer, name) is not None

    def share(family: Family) -> float:
        names = _all_tokens(family)
        return sum(map(has, names)) / len(names)

    fits = [family for family in FAMILIES.values() if family.fim and all(map(has, _document_sentinels(family)))]
    return max(fits, key=share, default=None)


def fim(
    family: Family,
    tokenizer: TextEncoder,
    prefix: Text,
    suffix: Text,
    middle: str | None = None,
    *,
    mode: Mode | None = None,
    path: str | None = None,
    repo: Repository | None = None,
) -> Rendered:
    """A file with a hole between prefix and suffix; `mode` None is the family's default.

    Without `middle` it is a prompt, which ends right where the middle begins; with it, a whole training document.
    The document is the prompt, then the middle, then the end token: prefix and middle are encoded apart. A prefix
    given as ids brings the space that some families put before it.
    """
    parts = _fim_parts(family, mode)
    hole = parts.index(Slot.MIDDLE)
    values = {
        Slot.PREFIX: [_Piece(Role.PREFIX, prefix)],
        Slot.SUFFIX: [_Piece(Role.SUFFIX, suffix)],
        Slot.MIDDLE: [_Piece(Role.MIDDLE, middle or "")],
        Slot.PATH: [_Piece(Role.CONTEXT, path or "")],
        **_surroundings(family, path, repo),
    }
    pieces = [*_specials(family.start), *_fill(parts[:hole], values, Role.CONTEXT)]
    if middle is not None:
        pieces += _fill(parts[hole:], values, Role.MIDDLE, Role.MIDDLE)
    rendered = _encode(family, tokenizer, pieces)
    return Rendered(rendered.ids, [Role.CONTEXT if role is Role.TEXT else role for role in rendered.roles])


def fim_several(
    family: Family,
    tokenizer: TextEncoder,
    parts: Sequence[str],
    middles: Sequence[str],
    *,
    path: str | None = None,
    repo: Repository | None = None,
) -> Rendered:
    """A training document with holes between its parts, and after it what fills them, in order."""
    layout = family.several
    if layout is None:
        raise UserError(f"{family.name} has no format for several holes: cut one, or use codelm")
    if len(parts) != len(middles) + 1 or not 1 <= len(middles) <= len(layout.masks):
        raise UserError(f"{len(parts)} parts and {len(middles)} middles: give 1 to {len(layout.masks)} holes")
    surroundings = _surroundings(family, path, repo)
    pieces = [*_specials(family.start), *surroundings.get(Slot.CONTEXT, ()), *surroundings.get(Slot.HEAD, ())]
    for mask, part in zip(layout.masks, parts[:-1], strict=False):
        pieces += [_Piece(Role.PREFIX, part), _Piece(Role.SENTINEL, mask, "special")]
    pieces.append(_Piece(Role.SUFFIX, parts[-1]))
    for mask, middle in zip(layout.masks, middles, strict=False):
        pieces += [_Piece(Role.SENTINEL, mask, "special"), _Piece(Role.MIDDLE, middle)]
        pieces.append(_Piece(Role.MIDDLE, layout.end, "special"))
    rendered = _encode(family, tokenizer, [*pieces, _Piece(Role.MIDDLE, family.end, "special")])
    return Rendered(rendered.ids, [Role.CONTEXT if role is Role.TEXT else role for role in rendered.roles])


def text(family: Family, tokenizer: TextEncoder, text: Text, *, end: bool = False) -> Rendered:
    """Text from left to right: a prompt to continue, or with `end` a whole document."""
    pieces = _fill(family.text, {Slot.TEXT: [_Piece(Role.TEXT, text)]}, Role.TEXT)
    return _encode(family, tokenizer, [*_specials(family.start), *pieces, *_end(family, end)])


def repository(
    family: Family, tokenizer: TextEncoder, name: str, files: Sequence[File], *, end: bool = True
) -> Rendered:
    """A repository's files one after the other; without `end`, the last file is still being written."""
    layout = _repository_layout(family)
    pieces = _name_and_files(family, layout, Repository(files, name))
    return _encode(family, tokenizer, [*_specials(family.start), *pieces, *_end(family, end)])


def chat(
    family: Family, tokenizer: TextEncoder, messages: Sequence[Message], *, add_generation_prompt: bool
) -> Rendered:
    """A conversation. With `add_generation_prompt` it ends where the assistant begins to write.

    A family without a system turn gets the system message in a user turn, as it documents.
    """
    layout = _chat_layout(family)
    _check_turns(family, layout, messages, add_generation_prompt)
    system = messages[0] if messages[0].role == "system" else None
    turns = messages[1:] if system else messages
    users = [i for i, message in enumerate(turns) if message.role == "user"]
    carrier = users[-1 if layout.system_in_last else 0] if system and layout.system is None else None

    pieces = _specials(family.start if layout.opens_document else ())
    if system and layout.system is not None:
        pieces += _fill(layout.system, {Slot.TEXT: [_content(layout, system)]}, Role.PROMPT)
    for i, message in enumerate(turns):
        pieces += _turn(layout, message, system if i == carrier else None)
    if add_generation_prompt:
        pieces += _fill(layout.ask, {}, Role.PROMPT)
    return _encode(family, tokenizer, pieces)


def stop_ids(family: Family, tokenizer: TextEncoder, surface: Surface) -> frozenset[int]:
    """Tokens that stop generation. Only those which this tokenizer has: a family's models differ in the rest."""
    names = {family.end, *family.stops}
    if surface == "chat":
        layout = _chat_layout(family)
        turns = (*layout.user, *(layout.system or ()), *(layout.tool or ()), *layout.ask, *layout.reply)
        names |= _names(turns)
    elif surface == "fim":
        _fim_parts(family, None)
        names |= _document_tokens(family)
    elif surface == "text":
        names |= _document_tokens(family)
    else:
        raise UserError(f"unknown surface {surface!r}: use fim, chat or text")
    found = (_find_special(tokenizer, name) for name in names)
    return frozenset(i for i in found if i is not None)


# ---- layouts ----


def _fim_parts(family: Family, mode: Mode | None) -> Parts:
    if not family.fim:
        raise UserError(f"{family.name} has no fill-in-the-middle format: complete its prefix from left to right")
    if mode is None:
        return next(iter(family.fim.values()))
    if mode not in ("psm", "spm"):
        raise UserError(f"unknown fill-in-the-middle mode {mode!r}: use psm or spm")
    if mode not in family.fim:
        raise UserError(f"{family.name} has no {mode.upper()} layout; use {' or '.join(family.fim)}")
    return family.fim[mode]


def _repository_layout(family: Family) -> RepositoryLayout:
    if family.repository is None:
        raise UserError(f"{family.name} has no format for repositories: give the code alone, without paths or files")
    return family.repository


def _chat_layout(family: Family) -> ChatLayout:
    if family.chat is None:
        raise UserError(f"{family.name} has no chat format: use a family that has one, such as codelm")
    return family.chat


def _document_sentinels(family: Family) -> set[str]:
    """Without which there is no document with a hole."""
    return {name for parts in family.fim.values() for name in _names(parts)} | set(family.start)


def _all_tokens(family: Family) -> set[str]:
    names = {family.end, *family.stops} | _document_tokens(family)
    if family.chat is not None:
        turns = (family.chat.user, family.chat.system, family.chat.tool, family.chat.ask, family.chat.reply)
        names |= {name for parts in turns for name in _names(parts or ())}
    return names | set(family.several.masks if family.several else ())


def _document_tokens(family: Family) -> set[str]:
    """Tokens of the format that structure documents: none of them belongs in a completion."""
    names = _document_sentinels(family)
    if family.repository is not None:
        names |= {*_names(family.repository.name), *_names(family.repository.file), *_names(family.repository.between)}
    return names


# ---- files around the hole ----


def _surroundings(family: Family, path: str | None, repo: Repository | None) -> _Values:
    """What fills CONTEXT and HEAD."""
    if path is None and repo is None:
        return {}
    layout = _repository_layout(family)
    repo = repo or Repository()
    if path is None and (repo.name or any(file.path is not None for file in repo.files)):
        raise UserError("other files were given without the path of the file to complete: give path too")
    return _before_hole(family, layout, _name_and_files(family, layout, repo), bool(repo.files), path)


def _before_hole(
    family: Family, layout: RepositoryLayout, before: list[_Piece], follows: bool, path: str | None
) -> dict[Slot, list[_Piece]]:
    """What fills CONTEXT and HEAD, when `before` goes in front and, if it `follows` one, a file is closed."""
    context = [*before, *_fill(layout.between if follows else (), {}, Role.CONTEXT)]
    context += _fill(layout.before, {}, Role.CONTEXT)
    head = _fill(_with_path(layout.head, path), {Slot.PATH: [_Piece(Role.CONTEXT, path or "")]}, Role.CONTEXT)
    return {Slot.CONTEXT: context, Slot.HEAD: head}


def _name_and_files(family: Family, layout: RepositoryLayout, repo: Repository) -> list[_Piece]:
    """The text of files has role TEXT, which also keeps it from being encoded together with its path."""
    pieces = _fill(layout.name, {Slot.REPO: [_Piece(Role.CONTEXT, repo.name)]}, Role.CONTEXT) if repo.name else []
    for i, file in enumerate(repo.files):
        if isinstance(file.text, Hole):
            pieces += _file_with_hole(family, layout, file.path, file.text, i > 0)
            continue
        values = {Slot.PATH: [_Piece(Role.CONTEXT, file.path or "")], Slot.TEXT: [_Piece(Role.TEXT, file.text)]}
        pieces += _fill(layout.between if i else (), {}, Role.CONTEXT)
        pieces += _fill(_with_path(layout.file, file.path), values, Role.CONTEXT)
    return pieces


def _file_with_hole(
    family: Family, layout: RepositoryLayout, path: str | None, hole: Hole, follows: bool
) -> list[_Piece]:
    """One file among others, as `fim` writes it; what follows, or the document's end, ends its middle."""
    parts = _fim_parts(family, hole.mode)
    values = {
        Slot.PREFIX: [_Piece(Role.PREFIX, hole.prefix)],
        Slot.SUFFIX: [_Piece(Role.SUFFIX, hole.suffix)],
        Slot.MIDDLE: [_Piece(Role.MIDDLE, hole.middle)],
        Slot.PATH: [_Piece(Role.CONTEXT, path or "")],
        **_before_hole(family, layout, [], follows, path),
    }
    return _fill(parts[: parts.index(Slot.MIDDLE) + 1], values, Role.CONTEXT)


def _with_path(parts: Parts, path: str | None) -> Parts:
    """Without a path, what the format writes around it is left out too: its tokens and the text remain."""
    return parts if path is not None else tuple(part for part in parts if isinstance(part, str) or part is Slot.TEXT)


# ---- chat ----


def _check_turns(family: Family, layout: ChatLayout, messages: Sequence[Message], prompt: bool) -> None:
    """System first, then user and assistant in turn; results of tools answer an assistant."""
    before = {"user": ("", "assistant"), "assistant": ("user", "tool"), "tool": ("assistant", "tool")}
    turns = messages[1:] if messages and messages[0].role == "system" else messages
    if not turns:
        raise UserError("a chat needs at least one user message")
    last = ""
    for message in turns:
        if message.role == "system":
            raise UserError("a chat takes one system message, before all others")
        if message.role not in before:
            raise UserError(f"unknown chat role {message.role!r}: use system, user, assistant or tool")
        if (message.role == "tool" and layout.tool is None) or (message.tool_calls and layout.call is None):
            raise UserError(f"{family.name} has no format for tool calls: leave them out or use codelm")
        if message.tool_calls and message.role != "assistant":
            raise UserError(f"only the assistant calls tools, not {message.role}")
        if last not in before[message.role]:
            place = f"follow {last}" if last else "come first"
            raise UserError(f"in a chat, {message.role} cannot {place}: user and assistant take turns")
        last = message.role
    if prompt and last == "assistant":
        raise UserError("the chat ends with the assistant's reply: end it with a user message to ask for another")


def _turn(layout: ChatLayout, message: Message, system: Message | None) -> list[_Piece]:
    content = _content(layout, message)
    if message.role == "assistant":
        calls = [
            piece
            for call in message.tool_calls
            for piece in _fill(layout.call or (), {Slot.TEXT: [_Piece(content.role, call)]}, *_REPLY)
        ]
        reply = _fill(layout.reply, {Slot.TEXT: [content], Slot.CALLS: calls}, *_REPLY)
        return [*_fill(layout.ask, {}, Role.PROMPT), *reply, *_fill(layout.after, {}, Role.PROMPT)]
    parts = layout.tool if message.role == "tool" else layout.user
    values = {Slot.TEXT: [content]}
    if system is not None:
        parts = layout.user_with_system
        values[Slot.SYSTEM] = [_content(layout, system)]
    return _fill(parts or (), values, Role.PROMPT)


# A reply's own special tokens are the model's to write, so they count as the assistant's.
_REPLY = (Role.ASSISTANT, Role.ASSISTANT)


def _content(layout: ChatLayout, message: Message) -> _Piece:
    role = Role.ASSISTANT if message.role == "assistant" else Role.PROMPT
    return _Piece(role, message.content.strip() if layout.strip else message.content)


# ---- parts to ids ----


def _fill(parts: Iterable[Part], values: _Values, plain: Role, special: Role = Role.SENTINEL) -> list[_Piece]:
    """The parts with their slots filled; a slot without a value stays empty."""
    pieces: list[_Piece] = []
    for part in parts:
        match part:
            case str():
                pieces.append(_Piece(special, part, "special"))
            case Plain():
                pieces.append(_Piece(plain, part.text))
            case Slot.LEAD:
                pieces.append(_Piece(plain, " ", "lead"))
            case Slot():
                pieces += values.get(part, ())
    return pieces


def _specials(names: Iterable[str]) -> list[_Piece]:
    return [_Piece(Role.SENTINEL, name, "special") for name in names]


def _end(family: Family, end: bool) -> list[_Piece]:
    return _specials([family.end] if end else ())


def _names(parts: Parts) -> set[str]:
    return {part for part in parts if isinstance(part, str)}


def _encode(family: Family, tokenizer: TextEncoder, pieces: Iterable[_Piece]) -> Rendered:
    ids: list[int] = []
    roles: list[Role] = []
    for piece in _joined(pieces):
        if not isinstance(piece.text, str):
            new = piece.text
        elif piece.kind == "text":
            new = tokenizer.encode(piece.text)
        else:
            new = [_special_id(family, tokenizer, piece.text)]
        ids += new
        roles += [piece.role] * len(new)
    return Rendered(ids, roles)


def _joined(pieces: Iterable[_Piece]) -> list[_Piece]:
    """Texts of one role that touch, as one: a tokenizer cuts `user\\n` and what follows it differently when apart.

    A prompt ends where roles change, so what is served is always cut as it was trained.
    """
    joined: list[_Piece] = []
    lead = ""
    for piece in pieces:
        last = joined[-1] if joined else None
        if not isinstance(piece.text, str):
            joined.append(piece)
        elif piece.kind == "lead":
            lead = piece.text
            continue
        elif piece.kind == "special":
            joined.append(piece)
        elif piece.text and last and isinstance(last.text, str) and (last.kind, last.role) == ("text", piece.role):
            joined[-1] = piece._replace(text=last.text + piece.text)
        elif piece.text:
            joined.append(piece._replace(text=lead + piece.text))
        lead = ""
    return joined


def _special_id(family: Family, tokenizer: TextEncoder, name: str) -> int:
    found = _find_special(tokenizer, name)
    if found is None:
        raise UserError(f"{family.name} needs the special token {name}, which this tokenizer does not have")
    return found


def _find_special(tokenizer: TextEncoder, name: str) -> int | None:
    """The token of that name; CodeLlama's are called `▁<PRE>` or `<PRE>`, depending on who converted the tokenizer."""
    found = tokenizer.special.get(name)
    return tokenizer.special.get(name.removeprefix("\u2581")) if found is None else found
