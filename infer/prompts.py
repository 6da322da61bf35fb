"""From text around a cursor to a prompt that fits: which format the model was trained in, and what is left out."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from codelm import formats
from codelm.cursor import window
from codelm.errors import UserError
from codelm.format_table import Family, Mode
from codelm.formats import File, Rendered, Repository, Role
from codelm.lm import LM, TEXT_ENDS
from codelm.tokenizer import Tokenizer


def tokenizer_of(lm: LM) -> Tokenizer:
    if lm.tokenizer is None:
        raise UserError("this model was loaded without a tokenizer: give ids, or put one beside its weights")
    return lm.tokenizer


def text_ends(tokenizer: Tokenizer) -> frozenset[int]:
    """The tokens it has that end a text."""
    return frozenset(tokenizer.special[name] for name in TEXT_ENDS if name in tokenizer.special)


def family_of(lm: LM, name: str = "") -> Family:
    """The prompt format of a name; else of the run the model comes from; else the one whose tokens it has."""
    if name or lm.prompt_format:
        return formats.family(name or lm.prompt_format)
    found = formats.family_of(tokenizer_of(lm))
    if found is None:
        raise UserError(
            "this model's tokenizer has the fill-in-the-middle tokens of no known format, so it takes no suffix: "
            "continue the prefix alone, or name a format"
        )
    return found


def prompt_and_ends(
    lm: LM,
    prefix: str,
    suffix: str,
    room: int,
    *,
    mode: Mode | None = None,
    path: str | None = None,
    name: str = "",
    repo: Repository | None = None,
) -> tuple[Rendered, frozenset[int]]:
    """A prompt for what belongs between two texts, in so many tokens at most, and the tokens that end what is written.

    Of a longer file it has what is nearest to the hole. Other files may take half of the room and what the file leaves;
    where that is less than they need, the first go. Without a suffix, a model that has no format continues.
    """
    tokenizer = tokenizer_of(lm)
    if not suffix and not takes_holes(lm, name):
        ids = tokenizer.encode_document(prefix)[-max(room, 1) :]
        return Rendered(ids, [Role.TEXT] * len(ids)), text_ends(tokenizer)
    family = family_of(lm, name)
    ends = formats.stop_ids(family, tokenizer, "fim")
    whole = formats.fim(family, tokenizer, prefix, suffix, mode=mode, path=path, repo=repo)
    if len(whole.ids) <= room:
        return whole, ends

    def frame(around: Repository | None) -> int:
        return len(formats.fim(family, tokenizer, "", "", mode=mode, path=path, repo=around).ids)

    before, after = tokenizer.encode(prefix), tokenizer.encode(suffix)
    if repo and repo.files:
        most = max(room // 2, room - len(before) - len(after))
        repo = replace(repo, files=_that_fit(repo.files, lambda files: frame(replace(repo, files=files)) - most, lm))
    if room <= frame(repo):
        raise UserError(f"a context with room for {room:,} tokens has none for text around the cursor: ask for fewer")
    kept = window(len(before), len(after), room - frame(repo))
    before, after = before[len(before) - kept[0] :], after[: kept[1]]
    return formats.fim(family, tokenizer, before, after, mode=mode, path=path, repo=repo), ends


def _that_fit(files: Sequence[File], excess: Callable[[Sequence[File]], int], lm: LM) -> list[File]:
    """The last files, the first of those without its beginning where that makes it fit."""
    kept: list[File] = []
    for file in reversed(files):
        ids = tokenizer_of(lm).encode(file.text) if isinstance(file.text, str) else file.text
        if isinstance(ids, formats.Hole):
            raise UserError("a file beside the one to complete has a hole of its own: give its whole text")
        over = excess([replace(file, text=ids), *kept])
        if over >= len(ids):
            break
        kept.insert(0, replace(file, text=ids[max(over, 0) :]))
        if over > 0:
            break
    return kept


def takes_holes(lm: LM, name: str = "") -> bool:
    """Whether it has a fill-in-the-middle format."""
    try:
        return bool(family_of(lm, name).fim)
    except UserError:
        return False
