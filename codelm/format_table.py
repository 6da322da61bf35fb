"""The prompt formats: one row a model family, as its makers document it. `codelm.formats` renders them.

A row is a tuple of parts. A plain string names a special token, `Plain("...")` is literal text, and a `Slot` is where
the caller's text goes. Reading a row aloud gives the documented format.

Default system prompts that some chat templates insert are not part of the table: give the system message you want.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Literal


class Slot(Enum):
    """Where text goes. CONTEXT holds the other files and HEAD what introduces the current one; both may be empty."""

    LEAD = "lead"  # the space SentencePiece puts before a text; only where text follows
    PREFIX = "prefix"
    SUFFIX = "suffix"
    MIDDLE = "middle"
    CONTEXT = "context"
    HEAD = "head"
    REPO = "repo"
    PATH = "path"
    TEXT = "text"
    SYSTEM = "system"
    CALLS = "calls"


@dataclass(frozen=True)
class Plain:
    """Text that belongs to the format itself."""

    text: str


Part = str | Plain | Slot
Parts = tuple[Part, ...]
Mode = Literal["psm", "spm"]

LEAD, PREFIX, SUFFIX, MIDDLE = Slot.LEAD, Slot.PREFIX, Slot.SUFFIX, Slot.MIDDLE
CONTEXT, HEAD, REPO, PATH, TEXT = Slot.CONTEXT, Slot.HEAD, Slot.REPO, Slot.PATH, Slot.TEXT
SYSTEM, CALLS = Slot.SYSTEM, Slot.CALLS
NEWLINE = Plain("\n")


@dataclass(frozen=True)
class RepositoryLayout:
    """How several files are written one after the other."""

    file: Parts
    """One whole file: its path and text."""
    head: Parts
    """What fills HEAD: introduces the file being completed."""
    name: Parts = ()
    """The repository's name, where the format has a place for it; left out when no name is given."""
    between: Parts = ()
    """Between a file's text and the next file."""
    before: Parts = ()
    """Closes CONTEXT, before the file being completed."""


@dataclass(frozen=True)
class SeveralLayout:
    """Several holes in one document: each is marked by its own token, which then introduces what fills it."""

    masks: tuple[str, ...]
    """As many holes as a document may have."""
    end: str
    """Ends what fills a hole."""


@dataclass(frozen=True)
class ChatLayout:
    """One row a turn. The assistant's turn is `ask`, which a prompt ends with, and `reply`, which the model writes."""

    user: Parts
    ask: Parts
    reply: Parts
    after: Parts = ()
    """After a reply; not written by the model."""
    system: Parts | None = None
    user_with_system: Parts | None = None
    """A user turn that carries the system message, for families without a system turn."""
    system_in_last: bool = False
    """That turn is the last user turn; otherwise the first."""
    tool: Parts | None = None
    """What a tool returned."""
    call: Parts | None = None
    """One tool call in a reply."""
    strip: bool = False
    """White space around each message is dropped."""
    opens_document: bool = True
    """The family's `start` comes first; otherwise the turns bring their own."""


@dataclass(frozen=True)
class Family:
    """A family of models that share a prompt format."""

    name: str
    end: str
    """Ends a document."""
    start: tuple[str, ...] = ()
    """Begins every prompt and every document."""
    text: Parts = (TEXT,)
    fim: Mapping[Mode, Parts] = field(default_factory=dict)
    """Layouts with a middle; the first is the family's default. Up to MIDDLE it is a prompt."""
    several: SeveralLayout | None = None
    repository: RepositoryLayout | None = None
    chat: ChatLayout | None = None
    stops: tuple[str, ...] = ()
    """Further tokens that stop generation, besides `end` and the format's own."""

    def __hash__(self) -> int:
        """By name, as layouts are kept in a dict."""
        return hash(self.name)


def _psm(prefix: str, suffix: str, middle: str, end: str) -> Parts:
    """The most common layout, shared by families that differ only in the names of their sentinels."""
    return (CONTEXT, HEAD, prefix, PREFIX, suffix, SUFFIX, middle, MIDDLE, end)


def _chatml(role: str) -> Parts:
    return ("<|im_start|>", Plain(f"{role}\n"), TEXT, "<|im_end|>", NEWLINE)


def _granite(role: str) -> Parts:
    return ("<|start_of_role|>", Plain(role), "<|end_of_role|>", TEXT, "<|end_of_text|>", NEWLINE)


# Ours. The names of roles are special tokens, so that no text can open a turn; a reply ends with <|im_end|> and the
# newline after it belongs to the format, not to the model. SPM is variant 2 of Bavarian et al. (arXiv 2207.14255);
# several holes are InCoder's (arXiv 2204.05999).
CODELM = Family(
    "codelm",
    end="<|endoftext|>",
    fim={
        "psm": _psm("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>"),
        "spm": (
            *(CONTEXT, HEAD, "<|fim_prefix|>", "<|fim_suffix|>", SUFFIX, "<|fim_middle|>", PREFIX, MIDDLE),
            "<|endoftext|>",
        ),
    },
    several=SeveralLayout(masks=tuple(f"<|mask_{i}|>" for i in range(16)), end="<|mask_end|>"),
    repository=RepositoryLayout(
        name=("<|repo_name|>", REPO, NEWLINE),
        file=("<|file_sep|>", PATH, NEWLINE, TEXT),
        head=("<|file_sep|>", PATH, NEWLINE),
    ),
    chat=ChatLayout(
        system=("<|im_start|>", "<|system|>", NEWLINE, TEXT, "<|im_end|>", NEWLINE),
        user=("<|im_start|>", "<|user|>", NEWLINE, TEXT, "<|im_end|>", NEWLINE),
        tool=(
            *("<|im_start|>", "<|tool|>", NEWLINE, "<|tool_result|>", TEXT, "<|/tool_result|>", "<|im_end|>"),
            NEWLINE,
        ),
        ask=("<|im_start|>", "<|assistant|>", NEWLINE),
        reply=(TEXT, CALLS, "<|im_end|>"),
        call=("<|tool_call|>", TEXT, "<|/tool_call|>"),
        after=(NEWLINE,),
    ),
    stops=("<|fim_pad|>",),
)

# arXiv 2402.19173 section 5.1: the path goes inside the prefix of the file with the hole. PSM and SPM were trained
# half and half (issue 14 of bigcode-project/starcoder2; the order is the one of bigcode's Megatron-LM).
STARCODER2 = Family(
    "starcoder2",
    end="<|endoftext|>",
    fim={
        "psm": (
            *(CONTEXT, "<fim_prefix>", HEAD, PREFIX, "<fim_suffix>", SUFFIX, "<fim_middle>", MIDDLE),
            "<|endoftext|>",
        ),
        "spm": (
            *(CONTEXT, "<fim_prefix>", "<fim_suffix>", SUFFIX, "<fim_middle>", HEAD, PREFIX, MIDDLE),
            "<|endoftext|>",
        ),
    },
    repository=RepositoryLayout(
        name=("<repo_name>", REPO),
        file=("<file_sep>", PATH, NEWLINE, TEXT),
        before=("<file_sep>",),
        head=(PATH, NEWLINE),
    ),
    stops=("<fim_pad>",),
)

# README, examples and figure 4 of the report (arXiv 2409.12186) of QwenLM/Qwen2.5-Coder: a newline separates files
# (llama.cpp leaves it out). The chat template adds a default system message when there is none; we do not.
QWEN25_CODER = Family(
    "qwen2.5-coder",
    end="<|endoftext|>",
    fim={"psm": _psm("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>")},
    repository=RepositoryLayout(
        name=("<|repo_name|>", REPO, NEWLINE),
        file=("<|file_sep|>", PATH, NEWLINE, TEXT),
        between=(NEWLINE,),
        head=("<|file_sep|>", PATH, NEWLINE),
    ),
    chat=ChatLayout(
        system=_chatml("system"),
        user=_chatml("user"),
        ask=("<|im_start|>", Plain("assistant\n")),
        reply=(TEXT, "<|im_end|>"),
        after=(NEWLINE,),
    ),
    stops=("<|fim_pad|>", "<|im_end|>"),
)
# README of QwenLM/Qwen3-Coder. Its released models are instruction-tuned and its example wraps this FIM prompt in a
# chat turn; the bare prompt, which users report works, is unverified against the makers. Its repository format
# likewise.
QWEN3_CODER = replace(QWEN25_CODER, name="qwen3-coder")

# README of deepseek-ai/DeepSeek-Coder; chat template of deepseek-coder-1.3b-instruct. Names have full-width bars.
# Files of a repository in front of FIM: the paper (arXiv 2401.14196) cuts whole documents, which holds them inside
# the prefix, but shows no such prompt: unverified.
DEEPSEEK_CODER = Family(
    "deepseek-coder",
    start=("<｜begin▁of▁sentence｜>",),
    end="<｜end▁of▁sentence｜>",
    fim={
        "psm": (
            *("<｜fim▁begin｜>", CONTEXT, HEAD, PREFIX, "<｜fim▁hole｜>", SUFFIX, "<｜fim▁end｜>", MIDDLE),
            "<｜end▁of▁sentence｜>",
        )
    },
    repository=RepositoryLayout(
        file=(Plain("#"), PATH, NEWLINE, TEXT), between=(NEWLINE,), head=(Plain("#"), PATH, NEWLINE)
    ),
    chat=ChatLayout(
        system=(TEXT,),
        user=(Plain("### Instruction:\n"), TEXT, NEWLINE),
        ask=(Plain("### Response:\n"),),
        reply=(TEXT, NEWLINE, "<|EOT|>"),
        after=(NEWLINE,),
    ),
)

# infilling_prompt_tokens, tokenizer.py and chat_completion of meta-llama/codellama: the prefix keeps
# SentencePiece's leading space, the suffix and the middle have none. The paper encodes prefix and middle of SPM as
# one text; we encode them apart, so that training and serving see the same prefix. Chat: we strip every message.
_LLAMA2_CHAT = ChatLayout(
    user=("<s>", Plain(" [INST] "), TEXT, Plain(" [/INST]")),
    user_with_system=("<s>", Plain(" [INST] <<SYS>>\n"), SYSTEM, Plain("\n<</SYS>>\n\n"), TEXT, Plain(" [/INST]")),
    ask=(),
    reply=(Plain(" "), TEXT, Plain(" "), "</s>"),
    strip=True,
    opens_document=False,
)
CODELLAMA = Family(
    "codellama",
    start=("<s>",),
    end="</s>",
    text=(LEAD, TEXT),
    fim={
        "psm": ("▁<PRE>", LEAD, PREFIX, "▁<SUF>", SUFFIX, "▁<MID>", MIDDLE, "▁<EOT>"),
        "spm": ("▁<PRE>", "▁<SUF>", SUFFIX, "▁<MID>", LEAD, PREFIX, MIDDLE, "▁<EOT>"),
    },
    chat=_LLAMA2_CHAT,
)

# Figures 2 and 4 of the CodeGemma report (arXiv 2406.11409): the path, recommended, stands before the prefix's
# sentinel. It says that SPM was trained too, without showing its order: left out. Chat:
# ai.google.dev/gemma/docs/formatting; a system message goes in front of the first user turn, as llama.cpp does, for
# Gemma has none.
_GEMMA_CHAT = ChatLayout(
    user=("<start_of_turn>", Plain("user\n"), TEXT, "<end_of_turn>", NEWLINE),
    user_with_system=("<start_of_turn>", Plain("user\n"), SYSTEM, Plain("\n\n"), TEXT, "<end_of_turn>", NEWLINE),
    ask=("<start_of_turn>", Plain("model\n")),
    reply=(TEXT, "<end_of_turn>"),
    after=(NEWLINE,),
    strip=True,
)
CODEGEMMA = Family(
    "codegemma",
    start=("<bos>",),
    end="<eos>",
    fim={"psm": _psm("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_separator|>")},
    repository=RepositoryLayout(file=(PATH, NEWLINE, TEXT), between=("<|file_separator|>",), head=(PATH, NEWLINE)),
    chat=_GEMMA_CHAT,
    stops=("<end_of_turn>",),
)

# encode_fim and InstructTokenizerV3 of mistralai/mistral-common: suffix first, without a space; the prefix has its
# leading space and the middle just goes on. The system message goes into the last user turn. Files: `+++++ path`
# inside the prefix, two newlines between, as continuedev/continue writes them; unverified with the makers.
CODESTRAL = Family(
    "codestral",
    start=("<s>",),
    end="</s>",
    text=(LEAD, TEXT),
    fim={"spm": ("[SUFFIX]", SUFFIX, "[PREFIX]", LEAD, CONTEXT, HEAD, PREFIX, MIDDLE, "</s>")},
    repository=RepositoryLayout(
        file=(Plain("+++++ "), PATH, NEWLINE, TEXT),
        between=(Plain("\n\n"),),
        head=(Plain("+++++ "), PATH, NEWLINE),
    ),
    chat=ChatLayout(
        user=("[INST]", Plain(" "), TEXT, "[/INST]"),
        user_with_system=("[INST]", Plain(" "), SYSTEM, Plain("\n\n"), TEXT, "[/INST]"),
        system_in_last=True,
        ask=(),
        reply=(Plain(" "), TEXT, "</s>"),
    ),
)

# Granite 3.x (its tokenizer has <fim_prefix> and <|end_of_text|>; chat: IBM's prompt guide). Issue 9 of
# ibm-granite/granite-code-models says PSM and SPM were trained, without the order: SPM left out. llama.cpp puts a
# newline after the opening of a reply, which IBM's template does not have.
_GRANITE_CHAT = ChatLayout(
    system=_granite("system"),
    user=_granite("user"),
    ask=("<|start_of_role|>", Plain("assistant"), "<|end_of_role|>"),
    reply=(TEXT, "<|end_of_text|>"),
    after=(NEWLINE,),
)
GRANITE = Family(
    "granite",
    end="<|end_of_text|>",
    fim={
        "psm": ("<fim_prefix>", PREFIX, "<fim_suffix>", SUFFIX, "<fim_middle>", MIDDLE, "<|end_of_text|>"),
    },
    chat=_GRANITE_CHAT,
    stops=("<fim_pad>",),
)
# Granite 4: IBM's guide promises FIM and gives the chat format; the names of the sentinels come from our serving
# notes.
GRANITE4 = Family(
    "granite4",
    end="<|end_of_text|>",
    fim={
        "psm": ("<|fim_prefix|>", PREFIX, "<|fim_suffix|>", SUFFIX, "<|fim_middle|>", MIDDLE, "<|end_of_text|>"),
    },
    chat=_GRANITE_CHAT,
    stops=("<|fim_pad|>",),
)

# Model card of JetBrains/Mellum-4b-base: suffix first, and a prefix of its own before the middle. That the middle
# ends with <|endoftext|> and nothing begins the prompt is unverified.
MELLUM = Family(
    "mellum",
    end="<|endoftext|>",
    fim={
        "spm": (
            *(CONTEXT, HEAD, "<fim_suffix>", SUFFIX, "<fim_prefix>", PREFIX, "<fim_middle>", MIDDLE),
            "<|endoftext|>",
        )
    },
    repository=RepositoryLayout(file=("<filename>", PATH, NEWLINE, TEXT), head=("<filename>", PATH, NEWLINE)),
    stops=("<fim_pad>",),
)

# GLM-4.5: sentinels of its tokenizer, in the order that Zed and llama.cpp send them; the makers document none, and
# what ends a middle is unverified. Chat as in llama.cpp: a turn ends where the next one's role begins, so a reply
# has no token of its own to end with.
_GLM_CHAT = ChatLayout(
    system=("<|system|>", NEWLINE, TEXT),
    user=("<|user|>", NEWLINE, TEXT),
    ask=("<|assistant|>", NEWLINE),
    reply=(TEXT,),
)
GLM = Family(
    "glm",
    start=("[gMASK]", "<sop>"),
    end="<|endoftext|>",
    fim={
        "psm": ("<|code_prefix|>", PREFIX, "<|code_suffix|>", SUFFIX, "<|code_middle|>", MIDDLE, "<|endoftext|>"),
    },
    chat=_GLM_CHAT,
    stops=("<|user|>", "<|observation|>"),
)
# guides/Infilling_guideline.md of THUDM/CodeGeeX4: FIM is a user turn, suffix first. The language may stay blank,
# and we leave it so; BLOCK asks for several lines. That [gMASK]<sop> begins it and what ends a middle are
# unverified.
CODEGEEX4 = Family(
    "codegeex4",
    start=("[gMASK]", "<sop>"),
    end="<|endoftext|>",
    fim={
        "spm": (
            *("<|user|>", NEWLINE, CONTEXT, Plain("###PATH:"), PATH, Plain("\n###LANGUAGE:\n###MODE:BLOCK\n")),
            *("<|code_suffix|>", SUFFIX, "<|code_prefix|>", PREFIX, "<|code_middle|>", "<|assistant|>", NEWLINE),
            *(MIDDLE, "<|endoftext|>"),
        )
    },
    repository=RepositoryLayout(
        file=(Plain("###REFERENCE:\n###PATH:"), PATH, NEWLINE, TEXT), between=(NEWLINE,), head=()
    ),
    chat=_GLM_CHAT,
    stops=("<|user|>", "<|observation|>"),
)

# README of ByteDance-Seed/Seed-Coder-8B-Base (SPM only, arXiv 2506.03524) and the instruct model's
# chat_template.jinja, where every turn has a begin and an end token. No repository format is published. That FIM
# begins with the begin token, as the tokenizer has one, is unverified.
SEED_CODER = Family(
    "seed-coder",
    start=("<[begin▁of▁sentence]>",),
    end="<[end▁of▁sentence]>",
    fim={
        "spm": (
            *("<[fim-suffix]>", SUFFIX, "<[fim-prefix]>", PREFIX, "<[fim-middle]>", MIDDLE),
            "<[end▁of▁sentence]>",
        )
    },
    chat=ChatLayout(
        system=("<[begin▁of▁sentence]>", Plain("system\n"), TEXT, "<[end▁of▁sentence]>"),
        user=("<[begin▁of▁sentence]>", Plain("user\n"), TEXT, "<[end▁of▁sentence]>"),
        ask=("<[begin▁of▁sentence]>", Plain("assistant\n")),
        reply=(TEXT, "<[end▁of▁sentence]>"),
        strip=True,
        opens_document=False,
    ),
)

# Families without FIM.
# Llama 2: chat_completion of meta-llama/codellama, which keeps Llama 2's.
LLAMA2 = Family("llama2", start=("<s>",), end="</s>", text=(LEAD, TEXT), chat=_LLAMA2_CHAT)


def _llama3(role: str) -> Parts:
    return ("<|start_header_id|>", Plain(role), "<|end_header_id|>", Plain("\n\n"), TEXT, "<|eot_id|>")


# Llama 3 to 3.3: llama.com model cards and prompt formats. The templates of 3.1 and later add today's date; we do
# not.
LLAMA3 = Family(
    "llama3",
    start=("<|begin_of_text|>",),
    end="<|end_of_text|>",
    chat=ChatLayout(
        system=_llama3("system"),
        user=_llama3("user"),
        ask=("<|start_header_id|>", Plain("assistant"), "<|end_header_id|>", Plain("\n\n")),
        reply=(TEXT, "<|eot_id|>"),
        strip=True,
    ),
    stops=("<|eom_id|>",),
)
# Mixtral 8x7B and Mistral 7B v0.1/v0.2: InstructTokenizerV1 of mistralai/mistral-common. [INST] is text in these.
MIXTRAL = Family(
    "mixtral",
    start=("<s>",),
    end="</s>",
    text=(LEAD, TEXT),
    chat=ChatLayout(
        user=(Plain(" [INST] "), TEXT, Plain(" [/INST]")),
        user_with_system=(Plain(" [INST] "), SYSTEM, Plain("\n\n"), TEXT, Plain(" [/INST]")),
        ask=(),
        reply=(Plain(" "), TEXT, "</s>"),
    ),
)
# ai.google.dev/gemma/docs/formatting, as for CodeGemma.
GEMMA = Family("gemma", start=("<bos>",), end="<eos>", chat=_GEMMA_CHAT, stops=("<end_of_turn>",))

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        *(CODELM, STARCODER2, QWEN25_CODER, QWEN3_CODER, DEEPSEEK_CODER, CODELLAMA, CODEGEMMA, CODESTRAL, GRANITE),
        *(GRANITE4, MELLUM, GLM, CODEGEEX4, SEED_CODER, LLAMA2, LLAMA3, MIXTRAL, GEMMA),
    )
}
