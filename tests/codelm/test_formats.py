"""Prompt formats, family by family, against the layouts their makers document.

Expected tokens are written out by hand: a special token by its name, text one character a token.
"""

import re
from dataclasses import fields

import pytest

from codelm import formats
from codelm.errors import UserError
from codelm.format_table import ChatLayout, Slot
from codelm.formats import FAMILIES, File, Message, Rendered, Repository, Role

# The special tokens of each family's tokenizer that its formats use.
SPECIALS: dict[str, list[str]] = {
    "codelm": [
        *["<|endoftext|>", "<|pad|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"],
        *["<|repo_name|>", "<|file_sep|>", "<|im_start|>", "<|im_end|>", "<|system|>", "<|user|>"],
        *["<|assistant|>", "<|tool|>", "<|tool_call|>", "<|/tool_call|>", "<|tool_result|>", "<|/tool_result|>"],
        *[*(f"<|mask_{i}|>" for i in range(16)), "<|mask_end|>"],
    ],
    "starcoder2": [
        *["<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<repo_name>", "<file_sep>"],
    ],
    "qwen2.5-coder": [
        *["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"],
        *["<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"],
    ],
    "qwen3-coder": [
        *["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"],
        *["<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"],
    ],
    "deepseek-coder": [
        *["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"],
        "<|EOT|>",
    ],
    "codellama": ["<unk>", "<s>", "</s>", "▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>"],
    "codegemma": [
        *["<pad>", "<eos>", "<bos>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_separator|>"],
        *["<start_of_turn>", "<end_of_turn>"],
    ],
    "codestral": ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", "[PREFIX]", "[MIDDLE]", "[SUFFIX]"],
    "granite": [
        *["<|end_of_text|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<|start_of_role|>"],
        "<|end_of_role|>",
    ],
    "granite4": [
        *["<|end_of_text|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"],
        *["<|start_of_role|>", "<|end_of_role|>"],
    ],
    "mellum": ["<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>", "<filename>"],
    "glm": [
        *["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"],
        *["<|code_prefix|>", "<|code_middle|>", "<|code_suffix|>"],
    ],
    "codegeex4": [
        *["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"],
        *["<|code_prefix|>", "<|code_middle|>", "<|code_suffix|>"],
    ],
    "seed-coder": [
        *["<[begin▁of▁sentence]>", "<[end▁of▁sentence]>", "<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>"],
    ],
    "llama2": ["<unk>", "<s>", "</s>"],
    "llama3": [
        *["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        "<|eom_id|>",
    ],
    "mixtral": ["<unk>", "<s>", "</s>"],
    "gemma": ["<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>"],
}
WITHOUT_FIM = ["llama2", "llama3", "mixtral", "gemma"]
FIM_MODES = [(name, mode) for name, family in FAMILIES.items() for mode in family.fim]
WITH_REPOSITORY = [name for name, family in FAMILIES.items() if family.repository]
WITH_CHAT = [name for name, family in FAMILIES.items() if family.chat]


class FakeTokenizer:
    """One token a character; as in `codelm.tokenizer`, names of special tokens in text count only when asked for."""

    def __init__(self, specials: list[str]) -> None:
        self.special = {name: i for i, name in enumerate(specials)}
        self.encoded: list[str] = []

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        self.encoded.append(text)
        if allow_special:
            found = re.findall("|".join(map(re.escape, self.special)) + "|.", text, re.DOTALL)
            return [self.special.get(part, 1000 + ord(part[0])) for part in found]
        return [1000 + ord(character) for character in text]

    def show(self, rendered: Rendered) -> list[str]:
        assert len(rendered.ids) == len(rendered.roles)
        names = {i: name for name, i in self.special.items()}
        return [names[i] if i < 1000 else chr(i - 1000) for i in rendered.ids]

    def texts(self, rendered: Rendered, role: Role) -> str:
        return "".join(token for token, r in zip(self.show(rendered), rendered.roles, strict=True) if r is role)


@pytest.fixture
def tokenizer(request: pytest.FixtureRequest) -> FakeTokenizer:
    """The tokenizer of the family that the test is about."""
    return FakeTokenizer(SPECIALS[request.node.callspec.params["name"]])


def fim_tokens(name: str, *args: str, **options: object) -> list[str]:
    tokenizer = FakeTokenizer(SPECIALS[name])
    return tokenizer.show(formats.fim(formats.family(name), tokenizer, *args, **options))  # type: ignore[arg-type]


def chat_tokens(name: str, *turns: tuple[str, str], prompt: bool = True) -> list[str]:
    tokenizer = FakeTokenizer(SPECIALS[name])
    messages = [Message(role, content) for role, content in turns]
    return tokenizer.show(formats.chat(formats.family(name), tokenizer, messages, add_generation_prompt=prompt))


# ---- one file ----

FIM_LAYOUTS: dict[tuple[str, str], list[str]] = {
    ("codelm", "psm"): ["<|fim_prefix|>", *"ab", "<|fim_suffix|>", *"yz", "<|fim_middle|>", *"m", "<|endoftext|>"],
    ("codelm", "spm"): ["<|fim_prefix|>", "<|fim_suffix|>", *"yz", "<|fim_middle|>", *"abm", "<|endoftext|>"],
    ("starcoder2", "psm"): ["<fim_prefix>", *"ab", "<fim_suffix>", *"yz", "<fim_middle>", *"m", "<|endoftext|>"],
    ("starcoder2", "spm"): ["<fim_prefix>", "<fim_suffix>", *"yz", "<fim_middle>", *"abm", "<|endoftext|>"],
    ("qwen2.5-coder", "psm"): [
        *["<|fim_prefix|>", *"ab", "<|fim_suffix|>", *"yz", "<|fim_middle|>", *"m", "<|endoftext|>"],
    ],
    ("qwen3-coder", "psm"): [
        *["<|fim_prefix|>", *"ab", "<|fim_suffix|>", *"yz", "<|fim_middle|>", *"m", "<|endoftext|>"],
    ],
    ("deepseek-coder", "psm"): [
        *["<｜begin▁of▁sentence｜>", "<｜fim▁begin｜>", *"ab", "<｜fim▁hole｜>", *"yz", "<｜fim▁end｜>", *"m"],
        "<｜end▁of▁sentence｜>",
    ],
    ("codellama", "psm"): ["<s>", "▁<PRE>", *" ab", "▁<SUF>", *"yz", "▁<MID>", *"m", "▁<EOT>"],
    ("codellama", "spm"): ["<s>", "▁<PRE>", "▁<SUF>", *"yz", "▁<MID>", *" abm", "▁<EOT>"],
    ("codegemma", "psm"): [
        *["<bos>", "<|fim_prefix|>", *"ab", "<|fim_suffix|>", *"yz", "<|fim_middle|>", *"m", "<|file_separator|>"],
    ],
    ("codestral", "spm"): ["<s>", "[SUFFIX]", *"yz", "[PREFIX]", *" abm", "</s>"],
    ("granite", "psm"): ["<fim_prefix>", *"ab", "<fim_suffix>", *"yz", "<fim_middle>", *"m", "<|end_of_text|>"],
    ("granite4", "psm"): [
        *["<|fim_prefix|>", *"ab", "<|fim_suffix|>", *"yz", "<|fim_middle|>", *"m", "<|end_of_text|>"],
    ],
    ("mellum", "spm"): ["<fim_suffix>", *"yz", "<fim_prefix>", *"ab", "<fim_middle>", *"m", "<|endoftext|>"],
    ("glm", "psm"): [
        *["[gMASK]", "<sop>", "<|code_prefix|>", *"ab", "<|code_suffix|>", *"yz", "<|code_middle|>", *"m"],
        "<|endoftext|>",
    ],
    ("codegeex4", "spm"): [
        *["[gMASK]", "<sop>", "<|user|>", *"\n###PATH:\n###LANGUAGE:\n###MODE:BLOCK\n", "<|code_suffix|>", *"yz"],
        *["<|code_prefix|>", *"ab", "<|code_middle|>", "<|assistant|>", *"\nm", "<|endoftext|>"],
    ],
    ("seed-coder", "spm"): [
        *["<[begin▁of▁sentence]>", "<[fim-suffix]>", *"yz", "<[fim-prefix]>", *"ab", "<[fim-middle]>", *"m"],
        "<[end▁of▁sentence]>",
    ],
}


@pytest.mark.parametrize(("name", "mode"), list(FIM_LAYOUTS))
def test_a_document_with_a_middle_is_laid_out_as_documented(name: str, mode: str) -> None:
    assert fim_tokens(name, "ab", "yz", "m", mode=mode) == FIM_LAYOUTS[name, mode]


@pytest.mark.parametrize(("name", "mode"), list(FIM_LAYOUTS))
def test_a_prompt_ends_where_the_middle_begins(name: str, mode: str) -> None:
    assert fim_tokens(name, "ab", "yz", mode=mode) == FIM_LAYOUTS[name, mode][:-2]


def test_every_layout_of_the_table_is_checked_here() -> None:
    assert set(FIM_MODES) == set(FIM_LAYOUTS)
    assert set(WITH_REPOSITORY) == set(REPOSITORY_PROMPTS)
    assert set(WITH_CHAT) == set(CHATS)
    assert set(FAMILIES) == set(SPECIALS) == set(TEXTS)


@pytest.mark.parametrize(
    ("name", "default"),
    [("codelm", "psm"), ("codellama", "psm"), ("codestral", "spm"), ("mellum", "spm"), ("seed-coder", "spm")],
)
def test_the_default_mode_is_one_the_family_has(name: str, default: str) -> None:
    assert fim_tokens(name, "ab", "yz") == fim_tokens(name, "ab", "yz", mode=default)


@pytest.mark.parametrize(
    ("name", "mode", "expected"),
    [
        ("codelm", "psm", ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]),
        # SentencePiece adds its space to text only, so an empty prefix is no token at all.
        ("codellama", "psm", ["<s>", "▁<PRE>", "▁<SUF>", "▁<MID>"]),
        ("codellama", "spm", ["<s>", "▁<PRE>", "▁<SUF>", "▁<MID>"]),
        ("codestral", "spm", ["<s>", "[SUFFIX]", "[PREFIX]"]),
    ],
)
def test_empty_parts_leave_the_sentinels(name: str, mode: str, expected: list[str]) -> None:
    assert fim_tokens(name, "", "", mode=mode) == expected


def test_an_empty_middle_is_a_document_not_a_prompt() -> None:
    assert fim_tokens("codelm", "a", "z", "") == [
        *["<|fim_prefix|>", "a", "<|fim_suffix|>", "z", "<|fim_middle|>", "<|endoftext|>"]
    ]


def test_codellama_takes_either_name_of_its_sentinels() -> None:
    tokenizer = FakeTokenizer(["<s>", "</s>", "<PRE>", "<MID>", "<SUF>", "<EOT>"])
    family = formats.family("codellama")
    rendered = formats.fim(family, tokenizer, "a", "z", "m")
    assert tokenizer.show(rendered) == ["<s>", "<PRE>", *" a", "<SUF>", "z", "<MID>", "m", "<EOT>"]
    assert tokenizer.special["<EOT>"] in formats.stop_ids(family, tokenizer, "fim")


def test_codegemma_has_one_begin_token_even_if_the_code_spells_it() -> None:
    tokens = fim_tokens("codegemma", "<bos>", "<bos>", "<bos>", path="<bos>")
    assert tokens.count("<bos>") == 1
    assert tokens[0] == "<bos>"


# ---- what the roles say ----


def test_roles_of_a_fim_document() -> None:
    tokenizer = FakeTokenizer(SPECIALS["codelm"])
    repo = Repository([File("a.py", "aa")], "r")
    rendered = formats.fim(formats.family("codelm"), tokenizer, "pp", "ss", "mm", path="b.py", repo=repo)
    assert tokenizer.texts(rendered, Role.PREFIX) == "pp"
    assert tokenizer.texts(rendered, Role.SUFFIX) == "ss"
    assert tokenizer.texts(rendered, Role.MIDDLE) == "mm<|endoftext|>"
    assert tokenizer.texts(rendered, Role.CONTEXT) == "r\na.py\naab.py\n"
    assert tokenizer.texts(rendered, Role.SENTINEL) == (
        "<|repo_name|><|file_sep|><|file_sep|><|fim_prefix|><|fim_suffix|><|fim_middle|>"
    )
    assert Role.TEXT not in rendered.roles


def test_the_leading_space_of_codellama_belongs_to_the_prefix() -> None:
    tokenizer = FakeTokenizer(SPECIALS["codellama"])
    rendered = formats.fim(formats.family("codellama"), tokenizer, "pp", "ss", "mm")
    assert tokenizer.texts(rendered, Role.PREFIX) == " pp"


def test_roles_of_a_repository_and_of_text() -> None:
    tokenizer = FakeTokenizer(SPECIALS["codelm"])
    rendered = formats.repository(formats.family("codelm"), tokenizer, "r", [File("a", "aa"), File("b", "bb")])
    assert tokenizer.texts(rendered, Role.TEXT) == "aabb"
    assert tokenizer.texts(rendered, Role.CONTEXT) == "r\na\nb\n"
    assert tokenizer.texts(rendered, Role.SENTINEL) == "<|repo_name|><|file_sep|><|file_sep|><|endoftext|>"
    rendered = formats.text(formats.family("llama2"), FakeTokenizer(SPECIALS["llama2"]), "t", end=True)
    assert rendered.roles == [Role.SENTINEL, Role.TEXT, Role.TEXT, Role.SENTINEL]


def test_only_what_the_assistant_writes_has_its_role() -> None:
    tokenizer = FakeTokenizer(SPECIALS["codelm"])
    messages = [
        Message("system", "s"),
        Message("user", "u"),
        Message("assistant", "a", tool_calls=["run"]),
        Message("tool", "t"),
        Message("assistant", "b"),
    ]
    rendered = formats.chat(formats.family("codelm"), tokenizer, messages, add_generation_prompt=False)
    written = "a<|tool_call|>run<|/tool_call|><|im_end|>b<|im_end|>"
    assert tokenizer.texts(rendered, Role.ASSISTANT) == written
    assert tokenizer.texts(rendered, Role.PROMPT) == "\ns\n\nu\n\n\n\nt\n\n\n"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("qwen2.5-coder", "yo<|im_end|>"),
        ("deepseek-coder", "yo\n<|EOT|>"),
        ("codellama", " yo </s>"),
        ("codegemma", "yo<end_of_turn>"),
        ("codestral", " yo</s>"),
        ("granite", "yo<|end_of_text|>"),
        ("glm", "yo"),
        ("seed-coder", "yo<[end▁of▁sentence]>"),
        ("llama3", "yo<|eot_id|>"),
        ("mixtral", " yo</s>"),
    ],
)
def test_a_reply_includes_the_token_that_ends_it(name: str, written: str, tokenizer: FakeTokenizer) -> None:
    messages = [Message("user", "hi"), Message("assistant", "yo")]
    rendered = formats.chat(formats.family(name), tokenizer, messages, add_generation_prompt=False)
    assert tokenizer.texts(rendered, Role.ASSISTANT) == written


# ---- several files ----

# Two files, a and b, before the file c with the hole between p and s.
REPOSITORY_PROMPTS: dict[str, list[str]] = {
    "codelm": [
        *["<|repo_name|>", *"R\n", "<|file_sep|>", *"a\nA", "<|file_sep|>", *"b\nB", "<|file_sep|>", *"c\n"],
        *["<|fim_prefix|>", "p", "<|fim_suffix|>", "s", "<|fim_middle|>"],
    ],
    "starcoder2": [
        *["<repo_name>", "R", "<file_sep>", *"a\nA", "<file_sep>", *"b\nB", "<file_sep>"],
        *["<fim_prefix>", *"c\np", "<fim_suffix>", "s", "<fim_middle>"],
    ],
    "qwen2.5-coder": [
        *["<|repo_name|>", *"R\n", "<|file_sep|>", *"a\nA\n", "<|file_sep|>", *"b\nB\n", "<|file_sep|>", *"c\n"],
        *["<|fim_prefix|>", "p", "<|fim_suffix|>", "s", "<|fim_middle|>"],
    ],
    "qwen3-coder": [
        *["<|repo_name|>", *"R\n", "<|file_sep|>", *"a\nA\n", "<|file_sep|>", *"b\nB\n", "<|file_sep|>", *"c\n"],
        *["<|fim_prefix|>", "p", "<|fim_suffix|>", "s", "<|fim_middle|>"],
    ],
    "deepseek-coder": [
        *["<｜begin▁of▁sentence｜>", "<｜fim▁begin｜>", *"#a\nA\n#b\nB\n#c\np", "<｜fim▁hole｜>", "s", "<｜fim▁end｜>"],
    ],
    "codegemma": [
        *["<bos>", *"a\nA", "<|file_separator|>", *"b\nB", "<|file_separator|>", *"c\n"],
        *["<|fim_prefix|>", "p", "<|fim_suffix|>", "s", "<|fim_middle|>"],
    ],
    "codestral": ["<s>", "[SUFFIX]", "s", "[PREFIX]", *" +++++ a\nA\n\n+++++ b\nB\n\n+++++ c\np"],
    "mellum": [
        *["<filename>", *"a\nA", "<filename>", *"b\nB", "<filename>", *"c\n"],
        *["<fim_suffix>", "s", "<fim_prefix>", "p", "<fim_middle>"],
    ],
    "codegeex4": [
        *["[gMASK]", "<sop>", "<|user|>", *"\n###REFERENCE:\n###PATH:a\nA\n###REFERENCE:\n###PATH:b\nB\n"],
        *[*"###PATH:c\n###LANGUAGE:\n###MODE:BLOCK\n", "<|code_suffix|>", "s", "<|code_prefix|>", "p"],
        *["<|code_middle|>", "<|assistant|>", "\n"],
    ],
}


@pytest.mark.parametrize("name", list(REPOSITORY_PROMPTS))
def test_other_files_come_before_the_hole(name: str) -> None:
    repo = Repository([File("a", "A"), File("b", "B")], "R")
    assert fim_tokens(name, "p", "s", path="c", repo=repo) == REPOSITORY_PROMPTS[name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("codelm", ["<|file_sep|>", *"c\n", "<|fim_prefix|>", "p", "<|fim_suffix|>", "s", "<|fim_middle|>"]),
        ("starcoder2", ["<file_sep>", "<fim_prefix>", *"c\np", "<fim_suffix>", "s", "<fim_middle>"]),
        ("qwen2.5-coder", ["<|file_sep|>", *"c\n", "<|fim_prefix|>", "p", "<|fim_suffix|>", "s", "<|fim_middle|>"]),
        ("codegemma", ["<bos>", *"c\n", "<|fim_prefix|>", "p", "<|fim_suffix|>", "s", "<|fim_middle|>"]),
        ("codestral", ["<s>", "[SUFFIX]", "s", "[PREFIX]", *" +++++ c\np"]),
        ("mellum", ["<filename>", *"c\n", "<fim_suffix>", "s", "<fim_prefix>", "p", "<fim_middle>"]),
    ],
)
def test_a_path_alone_introduces_the_file(name: str, expected: list[str]) -> None:
    assert fim_tokens(name, "p", "s", path="c") == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "codelm",
            [
                *["<|repo_name|>", *"R\n", "<|file_sep|>", *"a\nA", "<|file_sep|>", *"c\n"],
                *["<|fim_prefix|>", "<|fim_suffix|>", "s", "<|fim_middle|>", *"pm", "<|endoftext|>"],
            ],
        ),
        (
            "starcoder2",
            [
                *["<repo_name>", "R", "<file_sep>", *"a\nA", "<file_sep>"],
                *["<fim_prefix>", "<fim_suffix>", "s", "<fim_middle>", *"c\npm", "<|endoftext|>"],
            ],
        ),
    ],
)
def test_other_files_with_the_suffix_first(name: str, expected: list[str]) -> None:
    repo = Repository([File("a", "A")], "R")
    assert fim_tokens(name, "p", "s", "m", mode="spm", path="c", repo=repo) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "codelm",
            ["<|repo_name|>", *"R\n", "<|file_sep|>", *"a\nA", "<|file_sep|>", *"b\nB", "<|endoftext|>"],
        ),
        ("starcoder2", ["<repo_name>", "R", "<file_sep>", *"a\nA", "<file_sep>", *"b\nB", "<|endoftext|>"]),
        (
            "qwen2.5-coder",
            ["<|repo_name|>", *"R\n", "<|file_sep|>", *"a\nA\n", "<|file_sep|>", *"b\nB", "<|endoftext|>"],
        ),
        ("deepseek-coder", ["<｜begin▁of▁sentence｜>", *"#a\nA\n#b\nB", "<｜end▁of▁sentence｜>"]),
        ("codegemma", ["<bos>", *"a\nA", "<|file_separator|>", *"b\nB", "<eos>"]),
        ("codestral", ["<s>", *"+++++ a\nA\n\n+++++ b\nB", "</s>"]),
        ("mellum", ["<filename>", *"a\nA", "<filename>", *"b\nB", "<|endoftext|>"]),
    ],
)
def test_a_repository_document(name: str, expected: list[str], tokenizer: FakeTokenizer) -> None:
    files = [File("a", "A"), File("b", "B")]
    family = formats.family(name)
    assert tokenizer.show(formats.repository(family, tokenizer, "R", files)) == expected
    assert tokenizer.show(formats.repository(family, tokenizer, "R", files, end=False)) == expected[:-1]


def test_a_repository_without_a_name_leaves_its_token_out() -> None:
    assert fim_tokens("starcoder2", "p", "s", path="c", repo=Repository([File("a", "A")])) == [
        *["<file_sep>", *"a\nA", "<file_sep>", "<fim_prefix>", *"c\np", "<fim_suffix>", "s", "<fim_middle>"]
    ]


@pytest.mark.parametrize("name", WITH_REPOSITORY)
def test_files_are_cut_into_tokens_alike_in_a_repository_and_around_a_hole(name: str, tokenizer: FakeTokenizer) -> None:
    family, files = formats.family(name), [File("a", "\n α"), File("b", "\n β")]
    formats.repository(family, tokenizer, "", files)
    alone = [text for text in tokenizer.encoded if "α" in text or "β" in text]
    tokenizer.encoded.clear()
    formats.fim(family, tokenizer, "p", "s", path="c", repo=Repository(files))
    assert alone == [text for text in tokenizer.encoded if "α" in text or "β" in text] == ["\n α", "\n β"]


# ---- text ----

TEXTS: dict[str, list[str]] = {
    "codelm": [*"ab", "<|endoftext|>"],
    "starcoder2": [*"ab", "<|endoftext|>"],
    "qwen2.5-coder": [*"ab", "<|endoftext|>"],
    "qwen3-coder": [*"ab", "<|endoftext|>"],
    "deepseek-coder": ["<｜begin▁of▁sentence｜>", *"ab", "<｜end▁of▁sentence｜>"],
    "codellama": ["<s>", *" ab", "</s>"],
    "codegemma": ["<bos>", *"ab", "<eos>"],
    "codestral": ["<s>", *" ab", "</s>"],
    "granite": [*"ab", "<|end_of_text|>"],
    "granite4": [*"ab", "<|end_of_text|>"],
    "mellum": [*"ab", "<|endoftext|>"],
    "glm": ["[gMASK]", "<sop>", *"ab", "<|endoftext|>"],
    "codegeex4": ["[gMASK]", "<sop>", *"ab", "<|endoftext|>"],
    "seed-coder": ["<[begin▁of▁sentence]>", *"ab", "<[end▁of▁sentence]>"],
    "llama2": ["<s>", *" ab", "</s>"],
    "llama3": ["<|begin_of_text|>", *"ab", "<|end_of_text|>"],
    "mixtral": ["<s>", *" ab", "</s>"],
    "gemma": ["<bos>", *"ab", "<eos>"],
}


@pytest.mark.parametrize("name", list(TEXTS))
def test_text_from_left_to_right(name: str, tokenizer: FakeTokenizer) -> None:
    family = formats.family(name)
    assert tokenizer.show(formats.text(family, tokenizer, "ab", end=True)) == TEXTS[name]
    assert tokenizer.show(formats.text(family, tokenizer, "ab")) == TEXTS[name][:-1]


# ---- chat ----

# system S, user U, assistant A, user V, and the prompt for the next reply.
CHATS: dict[str, list[str]] = {
    "codelm": [
        *["<|im_start|>", "<|system|>", *"\nS", "<|im_end|>", "\n", "<|im_start|>", "<|user|>", *"\nU", "<|im_end|>"],
        *["\n", "<|im_start|>", "<|assistant|>", *"\nA", "<|im_end|>", "\n", "<|im_start|>", "<|user|>", *"\nV"],
        *["<|im_end|>", "\n", "<|im_start|>", "<|assistant|>", "\n"],
    ],
    "qwen2.5-coder": [
        *["<|im_start|>", *"system\nS", "<|im_end|>", "\n", "<|im_start|>", *"user\nU", "<|im_end|>", "\n"],
        *["<|im_start|>", *"assistant\nA", "<|im_end|>", "\n", "<|im_start|>", *"user\nV", "<|im_end|>", "\n"],
        *["<|im_start|>", *"assistant\n"],
    ],
    "qwen3-coder": [
        *["<|im_start|>", *"system\nS", "<|im_end|>", "\n", "<|im_start|>", *"user\nU", "<|im_end|>", "\n"],
        *["<|im_start|>", *"assistant\nA", "<|im_end|>", "\n", "<|im_start|>", *"user\nV", "<|im_end|>", "\n"],
        *["<|im_start|>", *"assistant\n"],
    ],
    "deepseek-coder": [
        *["<｜begin▁of▁sentence｜>", *"S### Instruction:\nU\n### Response:\nA\n", "<|EOT|>"],
        *"\n### Instruction:\nV\n### Response:\n",
    ],
    "codellama": [
        *["<s>", *" [INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A ", "</s>", "<s>", *" [INST] V [/INST]"],
    ],
    "codegemma": [
        *["<bos>", "<start_of_turn>", *"user\nS\n\nU", "<end_of_turn>", "\n", "<start_of_turn>", *"model\nA"],
        *["<end_of_turn>", "\n", "<start_of_turn>", *"user\nV", "<end_of_turn>", "\n", "<start_of_turn>", *"model\n"],
    ],
    # mistral-common puts the system message into the last user turn.
    "codestral": ["<s>", "[INST]", *" U", "[/INST]", *" A", "</s>", "[INST]", *" S\n\nV", "[/INST]"],
    "granite": [
        *["<|start_of_role|>", *"system", "<|end_of_role|>", "S", "<|end_of_text|>", "\n"],
        *["<|start_of_role|>", *"user", "<|end_of_role|>", "U", "<|end_of_text|>", "\n"],
        *["<|start_of_role|>", *"assistant", "<|end_of_role|>", "A", "<|end_of_text|>", "\n"],
        *["<|start_of_role|>", *"user", "<|end_of_role|>", "V", "<|end_of_text|>", "\n"],
        *["<|start_of_role|>", *"assistant", "<|end_of_role|>"],
    ],
    "granite4": [
        *["<|start_of_role|>", *"system", "<|end_of_role|>", "S", "<|end_of_text|>", "\n"],
        *["<|start_of_role|>", *"user", "<|end_of_role|>", "U", "<|end_of_text|>", "\n"],
        *["<|start_of_role|>", *"assistant", "<|end_of_role|>", "A", "<|end_of_text|>", "\n"],
        *["<|start_of_role|>", *"user", "<|end_of_role|>", "V", "<|end_of_text|>", "\n"],
        *["<|start_of_role|>", *"assistant", "<|end_of_role|>"],
    ],
    "glm": [
        *["[gMASK]", "<sop>", "<|system|>", *"\nS", "<|user|>", *"\nU", "<|assistant|>", *"\nA", "<|user|>", *"\nV"],
        *["<|assistant|>", "\n"],
    ],
    "codegeex4": [
        *["[gMASK]", "<sop>", "<|system|>", *"\nS", "<|user|>", *"\nU", "<|assistant|>", *"\nA", "<|user|>", *"\nV"],
        *["<|assistant|>", "\n"],
    ],
    "seed-coder": [
        *["<[begin▁of▁sentence]>", *"system\nS", "<[end▁of▁sentence]>"],
        *["<[begin▁of▁sentence]>", *"user\nU", "<[end▁of▁sentence]>"],
        *["<[begin▁of▁sentence]>", *"assistant\nA", "<[end▁of▁sentence]>"],
        *["<[begin▁of▁sentence]>", *"user\nV", "<[end▁of▁sentence]>", "<[begin▁of▁sentence]>", *"assistant\n"],
    ],
    "llama2": [
        *["<s>", *" [INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST] A ", "</s>", "<s>", *" [INST] V [/INST]"],
    ],
    "llama3": [
        *["<|begin_of_text|>", "<|start_header_id|>", *"system", "<|end_header_id|>", *"\n\nS", "<|eot_id|>"],
        *["<|start_header_id|>", *"user", "<|end_header_id|>", *"\n\nU", "<|eot_id|>"],
        *["<|start_header_id|>", *"assistant", "<|end_header_id|>", *"\n\nA", "<|eot_id|>"],
        *["<|start_header_id|>", *"user", "<|end_header_id|>", *"\n\nV", "<|eot_id|>"],
        *["<|start_header_id|>", *"assistant", "<|end_header_id|>", *"\n\n"],
    ],
    "mixtral": ["<s>", *" [INST] S\n\nU [/INST] A", "</s>", *" [INST] V [/INST]"],
    "gemma": [
        *["<bos>", "<start_of_turn>", *"user\nS\n\nU", "<end_of_turn>", "\n", "<start_of_turn>", *"model\nA"],
        *["<end_of_turn>", "\n", "<start_of_turn>", *"user\nV", "<end_of_turn>", "\n", "<start_of_turn>", *"model\n"],
    ],
}


@pytest.mark.parametrize("name", list(CHATS))
def test_a_conversation_is_laid_out_as_documented(name: str) -> None:
    turns = [("system", "S"), ("user", "U"), ("assistant", "A"), ("user", "V")]
    assert chat_tokens(name, *turns) == CHATS[name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("codelm", ["<|im_start|>", "<|user|>", *"\nU", "<|im_end|>", "\n", "<|im_start|>", "<|assistant|>", "\n"]),
        ("qwen2.5-coder", ["<|im_start|>", *"user\nU", "<|im_end|>", "\n", "<|im_start|>", *"assistant\n"]),
        ("codellama", ["<s>", *" [INST] U [/INST]"]),
        ("codegemma", ["<bos>", "<start_of_turn>", *"user\nU", "<end_of_turn>", "\n", "<start_of_turn>", *"model\n"]),
        ("codestral", ["<s>", "[INST]", *" U", "[/INST]"]),
        ("mixtral", ["<s>", *" [INST] U [/INST]"]),
        ("glm", ["[gMASK]", "<sop>", "<|user|>", *"\nU", "<|assistant|>", "\n"]),
    ],
)
def test_a_chat_without_a_system_message(name: str, expected: list[str]) -> None:
    assert chat_tokens(name, ("user", "U")) == expected


@pytest.mark.parametrize("name", WITH_CHAT)
def test_a_chat_prompt_is_the_beginning_of_the_trained_conversation(name: str) -> None:
    asked = chat_tokens(name, ("system", "S"), ("user", "U"))
    trained = chat_tokens(name, ("system", "S"), ("user", "U"), ("assistant", "A"), prompt=False)
    assert trained[: len(asked)] == asked
    assert "A" in trained[len(asked) :]


def test_a_tool_call_and_its_result() -> None:
    tokenizer = FakeTokenizer(SPECIALS["codelm"])
    messages = [
        Message("user", "u"),
        Message("assistant", "a", tool_calls=["f(1)", "g"]),
        Message("tool", "1"),
        Message("tool", "2"),
    ]
    rendered = formats.chat(formats.family("codelm"), tokenizer, messages, add_generation_prompt=True)
    assert tokenizer.show(rendered) == [
        *["<|im_start|>", "<|user|>", *"\nu", "<|im_end|>", "\n"],
        *["<|im_start|>", "<|assistant|>", *"\na", "<|tool_call|>", *"f(1)", "<|/tool_call|>"],
        *["<|tool_call|>", "g", "<|/tool_call|>", "<|im_end|>", "\n"],
        *["<|im_start|>", "<|tool|>", "\n", "<|tool_result|>", "1", "<|/tool_result|>", "<|im_end|>", "\n"],
        *["<|im_start|>", "<|tool|>", "\n", "<|tool_result|>", "2", "<|/tool_result|>", "<|im_end|>", "\n"],
        *["<|im_start|>", "<|assistant|>", "\n"],
    ]


def test_white_space_around_a_message_stays_where_the_template_keeps_it() -> None:
    assert chat_tokens("llama2", ("user", " U\n")) == ["<s>", *" [INST] U [/INST]"]
    assert chat_tokens("mixtral", ("user", " U\n")) == ["<s>", *" [INST]  U\n [/INST]"]


@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("llama2", [" [INST] <<SYS>>\nS\n<</SYS>>\n\nU [/INST]", " A "]),
        ("qwen2.5-coder", ["system\nS", "\n", "user\nU", "\n", "assistant\n", "A", "\n"]),
        ("deepseek-coder", ["S### Instruction:\nU\n### Response:\n", "A\n", "\n"]),
        ("codestral", [" S\n\nU", " A"]),
    ],
)
def test_text_of_the_format_is_encoded_with_the_text_beside_it(
    name: str, encoded: list[str], tokenizer: FakeTokenizer
) -> None:
    """`[INST] ` and what follows would be cut otherwise. A reply is apart, as the model writes it apart."""
    messages = [Message("system", "S"), Message("user", "U"), Message("assistant", "A")]
    formats.chat(formats.family(name), tokenizer, messages, add_generation_prompt=False)
    assert tokenizer.encoded == encoded


# ---- what holds for every family ----


@pytest.mark.parametrize(("name", "mode"), FIM_MODES)
def test_training_is_the_prompt_then_the_middle_then_its_end(name: str, mode: str, tokenizer: FakeTokenizer) -> None:
    family = formats.family(name)
    options = (
        {"mode": mode, "path": "c", "repo": Repository([File("a", "A")], "R")} if family.repository else {"mode": mode}
    )
    served = formats.fim(family, tokenizer, "def f(", ")\n", **options)  # type: ignore[arg-type]
    trained = formats.fim(family, tokenizer, "def f(", ")\n", "a, b", **options)  # type: ignore[arg-type]
    (end,) = trained.ids[len(served.ids) + 4 :]
    assert trained.ids == [*served.ids, *tokenizer.encode("a, b"), end]
    assert trained.roles[: len(served.roles)] == served.roles
    assert set(trained.roles[len(served.roles) :]) == {Role.MIDDLE}
    assert end in formats.stop_ids(family, tokenizer, "fim")


@pytest.mark.parametrize(("name", "mode"), FIM_MODES)
def test_every_character_is_there_exactly_once(name: str, mode: str, tokenizer: FakeTokenizer) -> None:
    family = formats.family(name)
    prefix, suffix, middle = "αβ\n", "γδ ", " ε\n"
    options = {"path": "ζη", "repo": Repository([File("θ", "ι\nκ"), File("λ", "μν")], "ξ")} if family.repository else {}
    rendered = formats.fim(family, tokenizer, prefix, suffix, middle, mode=mode, **options)  # type: ignore[arg-type]
    shown = tokenizer.show(rendered)
    written = "αβγδε" + ("ζηθικλμν" if family.repository else "")
    assert sorted(token for token in shown if token in "αβγδεζηθικλμν") == sorted(written)
    assert tokenizer.texts(rendered, Role.PREFIX).lstrip(" ") == prefix
    assert tokenizer.texts(rendered, Role.SUFFIX) == suffix
    assert tokenizer.texts(rendered, Role.MIDDLE).startswith(middle)


# Every special token of every family, spelled out.
INJECTION = "".join(sorted({special for specials in SPECIALS.values() for special in specials}))


def specials_of(tokenizer: FakeTokenizer, rendered: Rendered) -> list[str]:
    return [token for token in tokenizer.show(rendered) if token in tokenizer.special]


@pytest.mark.parametrize(("name", "mode"), FIM_MODES)
def test_code_that_spells_sentinels_stays_text(name: str, mode: str, tokenizer: FakeTokenizer) -> None:
    family = formats.family(name)

    def render(text: str) -> Rendered:
        around = {"path": text, "repo": Repository([File(text, text)], text)} if family.repository else {}
        return formats.fim(family, tokenizer, text, text, text, mode=mode, **around)  # type: ignore[arg-type]

    attack = render(INJECTION)
    assert specials_of(tokenizer, attack) == specials_of(tokenizer, render("x"))
    assert tokenizer.texts(attack, Role.PREFIX).lstrip(" ") == INJECTION


@pytest.mark.parametrize("name", WITH_REPOSITORY)
def test_a_repository_that_spells_sentinels_stays_text(name: str, tokenizer: FakeTokenizer) -> None:
    family = formats.family(name)
    plain = formats.repository(family, tokenizer, "R", [File("a", "A")])
    attack = formats.repository(family, tokenizer, INJECTION, [File(INJECTION, INJECTION)])
    assert specials_of(tokenizer, attack) == specials_of(tokenizer, plain)


@pytest.mark.parametrize("name", WITH_CHAT)
def test_messages_that_spell_sentinels_stay_text(name: str, tokenizer: FakeTokenizer) -> None:
    family = formats.family(name)

    def render(text: str) -> Rendered:
        messages = [Message("system", text), Message("user", text), Message("assistant", text), Message("user", text)]
        return formats.chat(family, tokenizer, messages, add_generation_prompt=True)

    assert specials_of(tokenizer, render(INJECTION)) == specials_of(tokenizer, render("x"))


def test_tool_calls_and_results_that_spell_sentinels_stay_text() -> None:
    tokenizer = FakeTokenizer(SPECIALS["codelm"])

    def render(text: str) -> Rendered:
        messages = [Message("user", text), Message("assistant", text, [text]), Message("tool", text)]
        return formats.chat(formats.family("codelm"), tokenizer, messages, add_generation_prompt=True)

    assert specials_of(tokenizer, render(INJECTION)) == specials_of(tokenizer, render("x"))


@pytest.mark.parametrize("name", list(FAMILIES))
def test_left_to_right_text_that_spells_sentinels_stays_text(name: str, tokenizer: FakeTokenizer) -> None:
    family = formats.family(name)
    plain = formats.text(family, tokenizer, "x", end=True)
    attack = formats.text(family, tokenizer, INJECTION, end=True)
    assert specials_of(tokenizer, attack) == specials_of(tokenizer, plain)


@pytest.mark.parametrize("name", WITH_CHAT)
def test_every_chat_has_a_place_for_the_system_message(name: str) -> None:
    chat = FAMILIES[name].chat
    assert isinstance(chat, ChatLayout)
    assert (chat.system is None) != (chat.user_with_system is None)
    assert chat.user.count(Slot.TEXT) == chat.reply.count(Slot.TEXT) == 1
    if chat.user_with_system is not None:
        assert chat.user_with_system.count(Slot.SYSTEM) == chat.user_with_system.count(Slot.TEXT) == 1


# ---- stop tokens ----


@pytest.mark.parametrize(
    ("name", "surface", "expected"),
    [
        (
            "codelm",
            "fim",
            {
                *("<|endoftext|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
                *("<|repo_name|>", "<|file_sep|>"),
            },
        ),
        (
            "codelm",
            "chat",
            {
                *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"),
                *("<|tool_result|>", "<|/tool_result|>", "<|fim_pad|>"),
            },
        ),
        (
            "starcoder2",
            "fim",
            {
                *("<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>"),
                *("<repo_name>", "<file_sep>"),
            },
        ),
        (
            "qwen2.5-coder",
            "fim",
            {
                *("<|endoftext|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
                *("<|fim_pad|>", "<|repo_name|>", "<|file_sep|>"),
            },
        ),
        ("qwen2.5-coder", "chat", {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_pad|>"}),
        (
            "deepseek-coder",
            "fim",
            {
                *("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜fim▁begin｜>", "<｜fim▁hole｜>"),
                "<｜fim▁end｜>",
            },
        ),
        ("deepseek-coder", "chat", {"<｜end▁of▁sentence｜>", "<|EOT|>"}),
        ("codellama", "fim", {"<s>", "</s>", "▁<PRE>", "▁<MID>", "▁<SUF>", "▁<EOT>"}),
        (
            "codegemma",
            "fim",
            {
                *("<bos>", "<eos>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_separator|>"),
                "<end_of_turn>",
            },
        ),
        ("codestral", "fim", {"<s>", "</s>", "[PREFIX]", "[SUFFIX]"}),
        ("codestral", "chat", {"</s>", "[INST]", "[/INST]"}),
        ("glm", "chat", {"<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"}),
        ("llama3", "chat", {"<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"}),
        ("llama3", "text", {"<|begin_of_text|>", "<|end_of_text|>", "<|eom_id|>"}),
        ("mellum", "text", {*SPECIALS["mellum"]}),
    ],
)
def test_stop_tokens(name: str, surface: str, expected: set[str], tokenizer: FakeTokenizer) -> None:
    stops = formats.stop_ids(formats.family(name), tokenizer, surface)  # type: ignore[arg-type]
    assert {token for token, i in tokenizer.special.items() if i in stops} == expected


def test_stop_tokens_leave_out_what_the_tokenizer_lacks() -> None:
    tokenizer = FakeTokenizer(["<|endoftext|>", "<|fim_middle|>"])
    assert formats.stop_ids(formats.family("codelm"), tokenizer, "fim") == {0, 1}


def test_the_call_of_a_tool_does_not_stop_the_reply() -> None:
    tokenizer = FakeTokenizer(SPECIALS["codelm"])
    stops = formats.stop_ids(formats.family("codelm"), tokenizer, "chat")
    assert not stops & {tokenizer.special["<|tool_call|>"], tokenizer.special["<|/tool_call|>"]}


# ---- errors: one line that says what is wrong and what to do ----


def error_of(action: object) -> str:
    with pytest.raises(UserError) as error:
        action()  # type: ignore[operator]
    message = str(error.value)
    assert "\n" not in message
    return message


def test_an_unknown_family_suggests_the_nearest() -> None:
    assert "did you mean starcoder2?" in error_of(lambda: formats.family("starcoder"))
    assert "did you mean qwen2.5-coder?" in error_of(lambda: formats.family("qwen-2.5-coder"))


@pytest.mark.parametrize("name", WITHOUT_FIM)
def test_a_family_without_fim_says_so(name: str, tokenizer: FakeTokenizer) -> None:
    family = formats.family(name)
    expected = f"{name} has no fill-in-the-middle format: complete its prefix from left to right"
    assert error_of(lambda: formats.fim(family, tokenizer, "p", "s")) == expected
    assert error_of(lambda: formats.fim(family, tokenizer, "p", "s", "m", mode="psm")) == expected
    assert error_of(lambda: formats.stop_ids(family, tokenizer, "fim")) == expected


def test_a_mode_that_a_family_lacks_names_the_one_it_has() -> None:
    assert error_of(lambda: fim_tokens("qwen2.5-coder", "p", "s", mode="spm")) == (
        "qwen2.5-coder has no SPM layout; use psm"
    )
    assert error_of(lambda: fim_tokens("codestral", "p", "s", mode="psm")) == "codestral has no PSM layout; use spm"
    assert "unknown fill-in-the-middle mode 'mps'" in error_of(lambda: fim_tokens("codelm", "p", "s", mode="mps"))


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - set(WITH_REPOSITORY)))
def test_a_family_without_a_repository_format_says_so(name: str, tokenizer: FakeTokenizer) -> None:
    family = formats.family(name)
    assert f"{name} has no format for repositories" in error_of(
        lambda: formats.repository(family, tokenizer, "R", [File("a", "A")])
    )
    if family.fim:
        repo = Repository([File("a", "A")])
        assert "no format for repositories" in error_of(lambda: fim_tokens(name, "p", "s", path="c"))
        assert "no format for repositories" in error_of(lambda: fim_tokens(name, "p", "s", path="c", repo=repo))


def test_other_files_need_the_path_of_the_one_to_complete() -> None:
    repo = Repository([File("a", "A")])
    assert "give path too" in error_of(lambda: fim_tokens("codelm", "p", "s", repo=repo))


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - set(WITH_CHAT)))
def test_a_family_without_chat_says_so(name: str, tokenizer: FakeTokenizer) -> None:
    family = formats.family(name)
    ask = [Message("user", "U")]
    assert f"{name} has no chat format" in error_of(
        lambda: formats.chat(family, tokenizer, ask, add_generation_prompt=True)
    )
    assert f"{name} has no chat format" in error_of(lambda: formats.stop_ids(family, tokenizer, "chat"))


def test_an_unknown_surface() -> None:
    tokenizer = FakeTokenizer(SPECIALS["codelm"])
    assert "unknown surface 'edit'" in error_of(
        lambda: formats.stop_ids(formats.family("codelm"), tokenizer, "edit")  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(("name", "mode"), FIM_MODES)
def test_a_missing_special_token_is_named(name: str, mode: str) -> None:
    needed = [token for token in FIM_LAYOUTS[name, mode] if len(token) > 1]
    for missing in needed:
        tokenizer = FakeTokenizer([token for token in SPECIALS[name] if token != missing])
        message = error_of(
            lambda tokenizer=tokenizer: formats.fim(formats.family(name), tokenizer, "p", "s", "m", mode=mode)  # type: ignore[arg-type]
        )
        assert message == f"{name} needs the special token {missing}, which this tokenizer does not have"


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([], "at least one user message"),
        ([("system", "S")], "at least one user message"),
        ([("assistant", "A")], "assistant cannot come first"),
        ([("tool", "T")], "tool cannot come first"),
        ([("user", "U"), ("user", "V")], "user cannot follow user"),
        ([("user", "U"), ("assistant", "A"), ("assistant", "B"), ("user", "V")], "assistant cannot follow assistant"),
        ([("user", "U"), ("tool", "T")], "tool cannot follow user"),
        ([("user", "U"), ("assistant", "A"), ("tool", "T"), ("user", "V")], "user cannot follow tool"),
        ([("user", "U"), ("system", "S")], "one system message, before all others"),
        ([("system", "S"), ("system", "S"), ("user", "U")], "one system message, before all others"),
        ([("user", "U"), ("bot", "B")], "unknown chat role 'bot'"),
        ([("user", "U"), ("assistant", "A")], "end it with a user message"),
    ],
)
def test_turns_out_of_order(turns: list[tuple[str, str]], expected: str) -> None:
    assert expected in error_of(lambda: chat_tokens("codelm", *turns))


def test_tools_only_where_the_family_has_them() -> None:
    tokenizer = FakeTokenizer(SPECIALS["llama3"])

    def render(name: str, *messages: Message) -> Rendered:
        return formats.chat(formats.family(name), tokenizer, messages, add_generation_prompt=False)

    user, reply = Message("user", "U"), Message("assistant", "A")
    assert "llama3 has no format for tool calls" in error_of(
        lambda: render("llama3", user, Message("assistant", "A", ["f"]))
    )
    assert "llama3 has no format for tool calls" in error_of(
        lambda: render("llama3", user, reply, Message("tool", "T"))
    )
    assert "only the assistant calls tools" in error_of(lambda: render("codelm", Message("user", "U", ["f"])))


def test_roles_are_small_numbers_that_do_not_move() -> None:
    """They are written to files beside token ids."""
    assert [(role.name, int(role)) for role in Role] == [
        *[("SENTINEL", 0), ("PREFIX", 1), ("SUFFIX", 2), ("MIDDLE", 3), ("CONTEXT", 4), ("TEXT", 5)],
        *[("PROMPT", 6), ("ASSISTANT", 7)],
    ]
    assert [f.name for f in fields(Rendered)] == ["ids", "roles"]


@pytest.mark.parametrize("name", [name for name in SPECIALS if FAMILIES[name].fim])
def test_the_family_is_known_by_its_special_tokens(name: str) -> None:
    """Or it is one that has the same, as both of Qwen's have."""
    found = formats.family_of(FakeTokenizer(SPECIALS[name]))
    assert found is not None
    assert found.name == name or set(SPECIALS[found.name]) >= set(SPECIALS[name])
