"""What training writes and no request does: several holes, holes in any file, files without a path, text as ids."""

import pytest

from codelm import formats
from codelm.errors import UserError
from codelm.formats import FAMILIES, File, Hole, Mode, Repository, Role
from tests.codelm.test_formats import SPECIALS, WITH_REPOSITORY, FakeTokenizer

CODELM = formats.family("codelm")


def tokenizer(name: str = "codelm") -> FakeTokenizer:
    return FakeTokenizer(SPECIALS[name])


# ---- several holes ----


def test_several_holes_by_hand() -> None:
    tokens = tokenizer()
    rendered = formats.fim_several(CODELM, tokens, ["ab", "", "yz"], ["m", "n"])
    assert tokens.show(rendered) == [
        *["a", "b", "<|mask_0|>", "<|mask_1|>", "y", "z"],
        *["<|mask_0|>", "m", "<|mask_end|>", "<|mask_1|>", "n", "<|mask_end|>", "<|endoftext|>"],
    ]
    assert rendered.roles == [
        *[Role.PREFIX, Role.PREFIX, Role.SENTINEL, Role.SENTINEL, Role.SUFFIX, Role.SUFFIX],
        *[Role.SENTINEL, Role.MIDDLE, Role.MIDDLE, Role.SENTINEL, Role.MIDDLE, Role.MIDDLE, Role.MIDDLE],
    ]


def test_several_holes_behind_other_files() -> None:
    tokens = tokenizer()
    repo = Repository([File("q", "t")], "r")
    rendered = formats.fim_several(CODELM, tokens, ["a", "z"], ["m"], path="p", repo=repo)
    head = ["<|repo_name|>", "r", "\n", "<|file_sep|>", "q", "\n", "t", "<|file_sep|>", "p", "\n"]
    middle = ["a", "<|mask_0|>", "z", "<|mask_0|>", "m", "<|mask_end|>", "<|endoftext|>"]
    assert tokens.show(rendered) == head + middle


@pytest.mark.parametrize(("parts", "middles"), [(["a"], []), (["a", "b"], ["m", "n"]), (["a"] * 18, ["m"] * 17)])
def test_as_many_parts_as_holes_and_one(parts: list[str], middles: list[str]) -> None:
    with pytest.raises(UserError, match="give 1 to 16 holes"):
        formats.fim_several(CODELM, tokenizer(), parts, middles)


def test_only_ours_has_several_holes() -> None:
    with pytest.raises(UserError, match="starcoder2 has no format for several holes"):
        formats.fim_several(formats.family("starcoder2"), tokenizer("starcoder2"), ["a", "b"], ["m"])


# ---- holes in any file ----


def test_a_hole_in_each_file_by_hand() -> None:
    tokens = tokenizer()
    files = [File("p", Hole("a", "m", "z", "psm")), File("q", "t"), File("s", Hole("b", "n", "y", "spm"))]
    assert tokens.show(formats.repository(CODELM, tokens, "r", files)) == [
        *["<|repo_name|>", "r", "\n"],
        *["<|file_sep|>", "p", "\n", "<|fim_prefix|>", "a", "<|fim_suffix|>", "z", "<|fim_middle|>", "m"],
        *["<|file_sep|>", "q", "\n", "t"],
        *["<|file_sep|>", "s", "\n", "<|fim_prefix|>", "<|fim_suffix|>", "y", "<|fim_middle|>", "b", "n"],
        "<|endoftext|>",
    ]


@pytest.mark.parametrize("name", [name for name in WITH_REPOSITORY if FAMILIES[name].fim])
def test_a_hole_in_the_last_file_is_what_a_request_asks_for(name: str) -> None:
    """Where the other files stand before the hole's own sentinels, which is wherever a file can end with a hole."""
    family, tokens = FAMILIES[name], tokenizer(name)
    mode = next(iter(family.fim))
    files = [File("q.py", "text"), File("r.py", "more")]
    document = formats.repository(family, tokens, "name", [*files, File("p.py", Hole("ab", "m", "yz", mode))])
    asked = formats.fim(family, tokens, "ab", "yz", "m", mode=mode, path="p.py", repo=Repository(files, "name"))
    inside = {"deepseek-coder", "codestral", "codegeex4"}  # these hold the files between their sentinels
    same = tokens.show(document)[:-1] == tokens.show(asked)[:-1]
    assert same == (name not in inside), (tokens.show(document), tokens.show(asked))


def test_roles_of_a_hole_among_files() -> None:
    tokens = tokenizer()
    rendered = formats.repository(CODELM, tokens, "", [File("p", Hole("a", "m", "z")), File("q", "t")])
    assert rendered.roles == [
        *[Role.SENTINEL, Role.CONTEXT, Role.CONTEXT, Role.SENTINEL, Role.PREFIX, Role.SENTINEL, Role.SUFFIX],
        *[Role.SENTINEL, Role.MIDDLE, Role.SENTINEL, Role.CONTEXT, Role.CONTEXT, Role.TEXT, Role.SENTINEL],
    ]


# ---- files without a path ----


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("codelm", ["<|file_sep|>", "a", "<|file_sep|>", "b", "<|endoftext|>"]),
        ("starcoder2", ["<file_sep>", "a", "<file_sep>", "b", "<|endoftext|>"]),
        ("qwen2.5-coder", ["<|file_sep|>", "a", "\n", "<|file_sep|>", "b", "<|endoftext|>"]),
        ("deepseek-coder", ["<｜begin▁of▁sentence｜>", "a", "\n", "b", "<｜end▁of▁sentence｜>"]),
    ],
)
def test_without_paths_only_the_formats_tokens_part_files(name: str, expected: list[str]) -> None:
    tokens = tokenizer(name)
    rendered = formats.repository(FAMILIES[name], tokens, "", [File(None, "a"), File(None, "b")])
    assert tokens.show(rendered) == expected


def test_a_hole_behind_files_without_paths() -> None:
    tokens = tokenizer()
    rendered = formats.fim(CODELM, tokens, "a", "z", "m", repo=Repository([File(None, "t")]))
    assert tokens.show(rendered)[:4] == ["<|file_sep|>", "t", "<|file_sep|>", "<|fim_prefix|>"]


# ---- text that was encoded before ----


def test_ids_are_taken_as_they_are() -> None:
    tokens = tokenizer()
    ids = tokens.encode("text")
    tokens.encoded.clear()
    assert formats.text(CODELM, tokens, ids, end=True) == formats.text(CODELM, tokenizer(), "text", end=True)
    assert tokens.encoded == []
    files = [File("p", ids), File("q", "more")]
    assert formats.repository(CODELM, tokens, "r", files) == formats.repository(
        CODELM, tokenizer(), "r", [File("p", "text"), File("q", "more")]
    )


@pytest.mark.parametrize("mode", ["psm", "spm"])
@pytest.mark.parametrize("name", ["codelm", "codellama", "starcoder2"])
def test_a_hole_between_ids(name: str, mode: Mode) -> None:
    """The space that CodeLlama puts before a prefix is one of its ids: text has it put in front, ids bring it."""
    tokens = tokenizer(name)
    around = {"path": "p", "repo": Repository([File("q", "t")])} if FAMILIES[name].repository else {}
    lead = " " if name == "codellama" else ""
    prefix, suffix = tokens.encode(lead + "ab"), tokens.encode("yz")
    tokens.encoded.clear()
    given = formats.fim(FAMILIES[name], tokens, prefix, suffix, "m", mode=mode, **around)  # type: ignore[arg-type]
    text = formats.fim(FAMILIES[name], tokenizer(name), "ab", "yz", "m", mode=mode, **around)  # type: ignore[arg-type]
    assert given == text
    assert not {"ab", " ab", "yz"} & set(tokens.encoded)


def test_ids_of_neighbours_are_not_joined() -> None:
    tokens = tokenizer("deepseek-coder")
    family = FAMILIES["deepseek-coder"]
    formats.repository(family, tokens, "", [File(None, [1001]), File(None, "b")])
    assert tokens.encoded == ["\n", "b"]
