"""The text of a document of our own prompt format, read back from its ids alone: an independent inverse of writing."""

from collections.abc import Sequence

from codelm.tokenizer import Tokenizer


def pieces(ids: Sequence[int], tokenizer: Tokenizer) -> list[tuple[str, bytes]]:
    """The special tokens, each with the bytes that follow it; the first may be none."""
    names = {i: name for name, i in tokenizer.special.items()}
    found: list[tuple[str, bytes]] = [("", b"")]
    for i in ids:
        if i in names:
            found.append((names[i].strip("<|>"), b""))
        else:
            found[-1] = (found[-1][0], found[-1][1] + tokenizer.pieces[i])
    return found


def files_of(ids: Sequence[int], tokenizer: Tokenizer) -> list[tuple[str | None, bytes]]:
    """Path, where it is said, and text of each file, with its holes filled. Asserts that it is well formed."""
    found = pieces(ids, tokenizer)
    if found[0] == ("", b""):
        found.pop(0)
    named = found[0][0] == "repo_name"
    if named:
        assert found.pop(0)[1].endswith(b"\n")
    if found[-1][0] == "endoftext":
        assert found.pop()[1] == b""
    files: list[list[tuple[str, bytes]]] = []
    for name, content in found:
        if name == "file_sep" or not files:
            files.append([])
        files[-1].append((name, content))
    return [_file(file, named) for file in files]


def _file(file: list[tuple[str, bytes]], named: bool) -> tuple[str | None, bytes]:
    path = None
    (name, content), rest = file[0], file[1:]
    if name == "file_sep":
        if named:
            head, line_end, content = content.partition(b"\n")
            assert line_end == b"\n"
            path = head.decode()
        file = [("", content), *rest] if content or not rest else rest
    names = [name for name, _ in file]
    bodies = [content for _, content in file]
    if names == ["fim_prefix", "fim_suffix", "fim_middle"]:
        prefix, suffix, middle = bodies
        spm = not prefix
        return path, middle + suffix if spm else prefix + middle + suffix
    if any(name.startswith("mask") for name in names):
        return path, _several(file)
    assert names == [""]
    return path, bodies[0]


def _several(file: list[tuple[str, bytes]]) -> bytes:
    if file[0][0]:
        file = [("", b""), *file]
    holes = sum(name == "mask_end" for name, _ in file)
    names = [name for name, _ in file]
    marks = [f"mask_{n}" for n in range(holes)]
    answers = [name for mark in marks for name in (mark, "mask_end")]
    assert names == ["", *marks, *answers]
    parts = [content for _, content in file[: holes + 1]]
    middles = [content for name, content in file[holes + 1 :] if name != "mask_end"]
    assert all(middles)
    assert all(content == b"" for name, content in file if name == "mask_end")
    return b"".join(part + middle for part, middle in zip(parts, [*middles, b""], strict=True))
