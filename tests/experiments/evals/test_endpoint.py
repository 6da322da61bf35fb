"""A server of completions: what is sent, and every way in which it may fail."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from codelm.errors import UserError
from codelm.formats import File
from experiments.evals.endpoint import RETRIES, Endpoint
from experiments.evals.harness import Settings, measure
from experiments.evals.suite import NotRun, Prompt
from experiments.evals.targets import Decoding, Unanswered
from tests.experiments.evals.fakes import sums

WHOLE, STREAM = "application/json", "text/event-stream; charset=utf-8"
DECODING = Decoding(0.2, 0.9, 16, ("\n", "a", "b", "c", "d"), 2**32 - 1)
Answer = tuple[int, bytes]


def said(text: str) -> Answer:
    return 200, json.dumps({"choices": [{"text": text}], "usage": {"completion_tokens": 3}}).encode()


def event(text: str, **more: object) -> bytes:
    return b"data: " + json.dumps({"choices": [{"text": text}], **more}).encode() + b"\n\n"


@contextmanager
def server(*answers: Answer, kind: str = WHOLE, pause: float = 0.0) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Gives these answers in turn, the last for ever; and what it was sent. A pause comes after each event."""
    got: list[dict[str, Any]] = []
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(200, b'{"data": [{"id": "tiny"}]}')

        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            got.append({**sent, "key": self.headers.get("Authorization")})
            self.reply(*(left.pop(0) if len(left) > 1 else left[0]))

        def reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):  # who asked may have gone
                for part in body.split(b"\n\n"):
                    self.wfile.write(part + b"\n\n" if kind == STREAM else part)
                    time.sleep(pause)

        def log_message(self, *said: Any) -> None:
            pass

    serves = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=serves.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{serves.server_port}", got
    finally:
        serves.shutdown()
        serves.server_close()


def test_a_hole_is_sent_as_the_api_has_it() -> None:
    with server(said("x")) as (url, got):
        written = Endpoint(url, key="k").ask(Prompt("before", "after"), DECODING)
    assert (written.text, written.tokens) == ("x", 3)
    assert got[0] == {
        "model": "tiny",
        "prompt": "before",
        "suffix": "after",
        "max_tokens": 16,
        "temperature": 0.2,
        "top_p": 0.9,
        "seed": 2**31 - 1,
        "stream": True,
        "stop": ["\n", "a", "b", "c"],
        "key": "Bearer k",
    }


def test_a_hole_is_written_in_a_format_where_one_is_given() -> None:
    prompt = Prompt("before", "after", "a.py", [File("b.py", "other")])
    with server(said("x")) as (url, got):
        Endpoint(url, family="qwen2.5-coder").ask(prompt, DECODING)
        Endpoint(url, family="codellama", mode="spm").ask(Prompt("before", "after"), DECODING)
    assert got[0]["prompt"].endswith("<|fim_prefix|>before<|fim_suffix|>after<|fim_middle|>")
    assert "<|file_sep|>b.py\nother" in got[0]["prompt"]
    assert "suffix" not in got[0]
    assert got[1]["prompt"].startswith("<s><PRE><SUF>")


def test_what_is_nearest_to_the_hole_is_sent() -> None:
    with server(said("x")) as (url, got):
        endpoint = Endpoint(url, characters=10)
        endpoint.ask(Prompt("0123456789", "abcdefghij"), DECODING)
        endpoint.ask(Prompt("0123456789abc"), DECODING)
    assert [(sent["prompt"], sent.get("suffix")) for sent in got] == [("3456789", "abc"), ("3456789abc", None)]


@pytest.mark.parametrize(
    "nonsense", [(500, b"oops"), (429, b"slow down"), (200, b"<html>"), (200, b'{"choices": []}'), (200, b"[]")]
)
def test_a_server_that_errs_for_a_while_is_asked_again(nonsense: Answer) -> None:
    pauses: list[float] = []
    with server(nonsense, nonsense, said("x")) as (url, got):
        assert Endpoint(url, pause=pauses.append).ask(Prompt("a"), DECODING).text == "x"
    assert len(got) == 3
    assert pauses == [0.5, 1.0]


@pytest.mark.parametrize(
    ("answer", "reason", "asked"),
    [
        ((503, b"overloaded"), "HTTP 503: overloaded", RETRIES),
        ((400, b"suffix is not supported"), "HTTP 400: suffix is not supported", 1),
        ((200, b'{"choices": [{"text": 3}]}'), r"choices\[0\].text is int, not text", RETRIES),
    ],
)
def test_one_that_errs_for_good_gives_no_answer_and_its_reason(answer: Answer, reason: str, asked: int) -> None:
    with server(answer) as (url, got), pytest.raises(Unanswered, match=reason):
        Endpoint(url, pause=lambda seconds: None).ask(Prompt("a"), DECODING)
    assert len(got) == asked


@pytest.mark.parametrize("kind", [STREAM, WHOLE])  # events, and parts of one line that does not end
@pytest.mark.parametrize(("pause", "timeout"), [(0.5, 0.1), (0.08, 0.2)])
def test_one_that_stalls_or_trickles_gives_no_answer(pause: float, timeout: float, kind: str) -> None:
    trickle = b"".join(event("x") for _ in range(9)) + b"data: [DONE]"
    with server((200, trickle), kind=kind, pause=pause) as (url, got):
        endpoint = Endpoint(url, "tiny", timeout=timeout, pause=lambda seconds: None)
        began = time.monotonic()
        with pytest.raises(Unanswered, match="timed out"):
            endpoint.ask(Prompt("a"), DECODING)
        assert time.monotonic() - began < RETRIES * (timeout + pause) + 1  # all of it takes longer
    assert len(got) == RETRIES


def test_one_that_goes_away_gives_no_answer() -> None:
    with pytest.raises(Unanswered, match="refused"):
        Endpoint("http://127.0.0.1:9", "tiny", pause=lambda seconds: None).ask(Prompt("a"), DECODING)


def test_a_stream_is_put_together_and_its_first_token_timed() -> None:
    parts = [b": hello\n\n", event(""), event("x = "), event("1"), event("", usage={"completion_tokens": 7})]
    last = b'data: {"choices": [], "usage": {}}\n\ndata: [DONE]'
    with server((200, b"".join([*parts, last])), kind=STREAM, pause=0.05) as (url, _):
        written = Endpoint(url, "tiny").ask(Prompt("a"), DECODING)
    assert (written.text, written.tokens) == ("x = 1", 7)
    assert 0.1 <= written.first <= written.seconds - 0.1
    with server((200, event("x") + event("y") + b"data: [DONE]"), kind=STREAM) as (url, _):
        assert Endpoint(url, "tiny").ask(Prompt("a"), DECODING).tokens == 2, "it counts none"


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (event("x"), "the stream ended before its end"),
        (event("x") + b'data: {"error": "burns"}\n\n', "an answer without choices.*burns"),
        (event("x") + b"data: [1]\n\n", "an answer without choices"),
        (event("x") + b"data: {\n\n", "Expecting property name"),
        (b"data: \xff\n\n", "invalid start byte"),
    ],
)
def test_half_a_stream_is_no_answer(stream: bytes, reason: str) -> None:
    with server((200, stream), kind=STREAM) as (url, _), pytest.raises(Unanswered, match=reason):
        Endpoint(url, "tiny", pause=lambda seconds: None).ask(Prompt("a"), DECODING)


def test_no_server_is_told_before_anything_is_asked() -> None:
    with pytest.raises(UserError, match=r"no answer from http://127.0.0.1:9/v1/models .*: is the server up"):
        Endpoint("http://127.0.0.1:9")


def test_a_suite_goes_on_over_answers_that_never_come(tmp_path: Path) -> None:
    with server((500, b"no"), (500, b"no"), (500, b"no"), (500, b"no"), (500, b"no"), said("2")) as (url, _):
        endpoint = Endpoint(url, pause=lambda seconds: None)
        found = measure(sums(2), endpoint, Settings(at_once=1), tmp_path / "a", None)
    assert found.result["figures"]["pass@1"]["value"] == 0.5
    assert found.result["reasons"] == {"unanswered: HTTP 500: no": 1}


def test_a_server_tells_no_likelihood() -> None:
    with server(said("x")) as (url, _), pytest.raises(NotRun, match="does not tell how likely"):
        Endpoint(url).losses("text")
