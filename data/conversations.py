"""Conversations to learn replies from: JSON lines, each `{"messages": [{"role": …, "content": …}, …]}`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from codelm.errors import UserError
from codelm.formats import Message


def read(path: Path) -> Iterator[tuple[int, list[Message]]]:
    """Each conversation and the number of its line."""
    if not path.is_file():
        raise UserError(f"no conversations at {path}: it is not a file")
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _messages(line, f"{path}:{number}")


def _messages(line: bytes, where: str) -> list[Message]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{where}: not JSON: {error}") from error
    turns = row.get("messages") if isinstance(row, dict) else None
    if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
        raise UserError(f'{where}: no conversation; a line is {{"messages": [{{"role": …, "content": …}}, …]}}')
    if not any(turn.get("role") == "assistant" for turn in turns):
        raise UserError(f"{where}: nobody replies: a conversation to learn from has an assistant's turn")
    return [_message(turn, where) for turn in turns]


def _message(turn: dict[str, Any], where: str) -> Message:
    role, content, calls = turn.get("role"), turn.get("content"), turn.get("tool_calls") or []
    if content is None and calls:
        content = ""  # a reply may be nothing but calls
    if not isinstance(role, str) or not isinstance(content, str) or not isinstance(calls, list):
        raise UserError(f"{where}: a turn has a role and a content, both text")
    if role == "assistant" and not content and not calls:
        raise UserError(f"{where}: a reply is empty: it would teach to say nothing")
    return Message(role, content, tuple(call if isinstance(call, str) else json.dumps(call) for call in calls))
