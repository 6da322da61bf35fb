"""A server of completions: what is sent, and every way in which it may fail."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
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

DECODING = Decoding(0.2, 0.9, 16, ("\n", "a", "b", "c", "d"), 2**32 - 1)
Answer = tuple[int, bytes]


def said(text: str) -> Answer:
    return 200, json.dumps({"choices": [{"text": text}], "usage": {"completion_tokens": 3}}).encode()


@contextmanager
def server(*answers: Answer) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Gives these answers in turn, the last for ever; and what it was sent."""
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
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *said: Any) -> None:
            pass

    serves = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=serves.serve_forever, daemon=True)
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


def test_one_that_stalls_gives_no_answer() -> None:
    with server(said("x")) as (url, _):
        endpoint = Endpoint(url, timeout=0.05, pause=lambda seconds: None)
        endpoint.base = "http://127.0.0.1:9"  # nobody
        with pytest.raises(Unanswered, match="refused"):
            endpoint.ask(Prompt("a"), DECODING)


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
