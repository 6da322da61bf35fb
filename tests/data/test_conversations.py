"""Conversations in, replies to learn out; what is no conversation is refused with its line."""

import json
from pathlib import Path

import pytest

from codelm.data_config import FimConfig, SourceConfig
from codelm.errors import UserError
from codelm.formats import Message
from data import conversations
from tests.data.batches import Batches


def file_of(folder: Path, *rows: object) -> Path:
    path = folder / "chats.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


ASKED = {"role": "user", "content": "Hi"}
REPLY = {"role": "assistant", "content": "Hello"}


def test_turns_are_read(tmp_path: Path) -> None:
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "run"}, "as text"]}
    path = file_of(tmp_path, {"messages": [ASKED, REPLY]}, "", {"messages": [ASKED, call], "more": 1})
    assert list(conversations.read(path)) == [
        (1, [Message("user", "Hi"), Message("assistant", "Hello")]),
        (3, [Message("user", "Hi"), Message("assistant", "", ('{"name": "run"}', "as text"))]),
    ]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{", "chats.jsonl:2: not JSON"),
        ("[]", "chats.jsonl:2: no conversation"),
        ({"text": "x"}, "chats.jsonl:2: no conversation"),
        ({"messages": ["x"]}, "chats.jsonl:2: no conversation"),
        ({"messages": [ASKED]}, "chats.jsonl:2: nobody replies"),
        ({"messages": [{"content": "x"}, REPLY]}, "chats.jsonl:2: a turn has a role and a content"),
        ({"messages": [{"role": "user"}, REPLY]}, "chats.jsonl:2: a turn has a role and a content"),
        ({"messages": [ASKED, {"role": "assistant", "content": ""}]}, "chats.jsonl:2: a reply is empty"),
        ({"messages": [REPLY, ASKED]}, "chats.jsonl:2: in a chat, assistant cannot come first"),
        ({"messages": [ASKED, REPLY, {"role": "robot", "content": ""}]}, "chats.jsonl:2: unknown chat role 'robot'"),
    ],
)
def test_what_is_no_conversation_is_refused(row: object, said: str, batches: Batches, tmp_path: Path) -> None:
    path = file_of(tmp_path, {"messages": [ASKED, REPLY]}, row)
    with pytest.raises(UserError) as error:
        batches.loader(SourceConfig(corpus=str(path), level="chat"))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_to_learn_from(batches: Batches, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no text"):
        batches.loader(SourceConfig(corpus=str(file_of(tmp_path)), level="chat"))


def test_what_does_not_fit_is_dropped_and_counted(batches: Batches, tmp_path: Path) -> None:
    """A reply without what it replies to would teach nothing."""
    long = {"role": "assistant", "content": "word " * 400}
    path = file_of(tmp_path, {"messages": [ASKED, REPLY]}, {"messages": [ASKED, long]})
    loader = batches.loader(SourceConfig(corpus=str(path), level="chat"), fim=FimConfig(rate=1.0))
    (rows,) = loader.strata
    sizes = rows.writer.store.documents["tokens"].astype(int)
    assert rows.stratum.dropped == sizes.max() - 256
    assert rows.stratum.tokens == sizes.min() + 256
    seen = [document for number in range(rows.stratum.rows) for document in loader.row(number).documents]
    assert sorted(len(document.ids) for document in seen) == [sizes.min(), 256]
    assert not any(document.holes for document in seen), "no holes in conversations"
