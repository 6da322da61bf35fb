"""What is measured: a server that speaks OpenAI's completions, asked over HTTP.

A server that errs, stalls or answers nonsense is asked again, each time after twice as long; what then has no answer
counts as wrong, with its reason, and the rest goes on. Answers are asked for as streams, for the time of their first
token; a server that sends them whole is taken as it is. Holes are sent as `prompt` and `suffix`, as the API has them;
for servers that know no suffix, --format writes the model's own sentinels into the prompt.
"""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from codelm import formats
from codelm.cursor import window
from codelm.errors import UserError
from codelm.format_table import Mode
from codelm.formats import Repository
from experiments.evals.suite import Losses, NotRun, Prompt
from experiments.evals.targets import Decoding, Unanswered, Written, joined

RETRIES = 5
_TRY_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)
_FIRST_PAUSE = 0.5  # seconds
_LONGEST_ANSWER = 1 << 24  # bytes
_STREAM = "text/event-stream"
_SHOWN = 160  # characters of what a server says


class Endpoint:
    """http://HOST/v1 or http://HOST."""

    def __init__(
        self,
        url: str,
        model: str = "",
        family: str = "",
        mode: Mode | None = None,
        characters: int = 24_000,
        key: str = "",
        timeout: float = 120.0,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base = url.rstrip("/") if url.rstrip("/").endswith("/v1") else f"{url.rstrip('/')}/v1"
        self.characters, self.key, self.timeout, self.pause = characters, key, timeout, pause
        self.family, self.mode = formats.family(family) if family else None, mode
        self.model = model or self._first_model()
        self.identity = {
            "name": self.model,
            "endpoint": self.base,
            "format": family or "prompt and suffix, as the server writes them",
            "mode": mode or "the format's own",
            "characters": characters,
        }

    def close(self) -> None:
        """Nothing is held."""

    def ask(self, prompt: Prompt, decoding: Decoding) -> Written:
        asked: dict[str, Any] = {
            "model": self.model,
            **self._prompt(prompt),
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "seed": decoding.seed % 2**31,
            "stream": True,
        }
        if decoding.stop:
            asked["stop"] = list(decoding.stop[:4])  # more are refused; suites cut what is left over themselves
        return self._patiently(asked)

    def losses(self, text: str) -> Losses:
        raise NotRun("a server does not tell how likely a text is; measure the model itself")

    def _prompt(self, prompt: Prompt) -> dict[str, str]:
        """What is nearest to the hole, in so many characters: how a server counts tokens is not known."""
        if prompt.suffix is None:
            return {"prompt": joined(prompt)[-self.characters :]}
        repo = Repository(prompt.files, prompt.repository)
        knows_files = bool(self.family and self.family.repository)
        whole = prompt.prefix if knows_files else joined(prompt)
        before, after = window(len(whole), len(prompt.suffix), self.characters)
        prefix, suffix = whole[len(whole) - before :], prompt.suffix[:after]
        if self.family is None:
            return {"prompt": prefix, "suffix": suffix}
        path = (prompt.path or None) if knows_files else None
        files = repo if path and (repo.files or repo.name) else None
        spelling = _Spelling()
        ids = formats.fim(self.family, spelling, prefix, suffix, mode=self.mode, path=path, repo=files).ids
        return {"prompt": "".join(spelling.texts[i] for i in ids)}

    def _patiently(self, asked: Mapping[str, Any]) -> Written:
        """Times are of the try that was answered."""
        reason = ""
        for attempt in range(RETRIES):
            if attempt:
                self.pause(_FIRST_PAUSE * 2 ** (attempt - 1))
            try:
                return self._answered(asked)
            except urllib.error.HTTPError as error:
                reason = f"HTTP {error.code}: {_said(error)}"
                if error.code not in _TRY_AGAIN:
                    break
            except (OSError, http.client.HTTPException, ValueError) as error:  # also time-outs; no JSON
                reason = f"{getattr(error, 'reason', error) or type(error).__name__}"
        raise Unanswered(reason[:_SHOWN])

    def _answered(self, asked: Mapping[str, Any]) -> Written:
        began, first = time.monotonic(), 0.0
        texts, tokens = list[str](), 0
        with self._open("/completions", asked) as answer:
            lines = _until(began + self.timeout, answer)
            for piece in _streamed(lines) if answer.headers.get_content_type() == _STREAM else _whole(lines):
                text, counted = _text_of(piece)
                first = first or (time.monotonic() - began) * bool(text)
                texts.append(text)
                tokens = counted or tokens
        seconds = time.monotonic() - began
        text = "".join(texts)
        return Written(text, tokens or sum(map(bool, texts)), round(seconds, 4), round(first or seconds, 4))

    def _first_model(self) -> str:
        try:
            with self._open("/models") as answer:
                return str(json.loads(answer.read(_LONGEST_ANSWER))["data"][0]["id"])
        except (LookupError, TypeError, ValueError) as error:
            raise UserError(f"{self.base}/models names no model: give its --name") from error
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise UserError(
                f"no answer from {self.base}/models ({reason}): is the server up? If it lists no models, give --name"
            ) from error

    def _open(self, path: str, content: Mapping[str, Any] | None = None) -> http.client.HTTPResponse:
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        body = json.dumps(content).encode() if content is not None else None
        return urllib.request.urlopen(urllib.request.Request(self.base + path, body, headers), timeout=self.timeout)


def _until(end: float, answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """The lines of an answer; a time-out where it takes too long as a whole, however it trickles, a ValueError where it
    is too long."""
    left, size = b"", 0
    while chunk := answer.read1(1 << 16):
        size += len(chunk)
        if size >= _LONGEST_ANSWER:
            raise ValueError(f"an answer of more than {_LONGEST_ANSWER >> 20} MiB")
        if time.monotonic() > end:
            raise TimeoutError("timed out while it was answering")
        *lines, left = (left + chunk).split(b"\n")
        yield from lines
    yield left


def _whole(lines: Iterator[bytes]) -> Iterator[Any]:
    yield json.loads(b"\n".join(lines))


def _streamed(lines: Iterator[bytes]) -> Iterator[Any]:
    """The events of a stream that hold text, up to its end."""
    for line in lines:
        kind, _, data = line.decode().strip().partition(":")
        if kind != "data":  # a blank line, a comment that keeps the connection open
            continue
        if data.strip() == "[DONE]":
            return
        event = json.loads(data)
        if not (isinstance(event, dict) and event.get("choices") == []):  # the last one may hold usage alone
            yield event
    raise ValueError("the stream ended before its end")


class _Spelling:
    """A tokenizer for formats whose ids stand for texts: a prompt in ids is a prompt in text."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    @property
    def special(self) -> Mapping[str, int]:
        return _Named(self)

    def encode(self, text: str) -> list[int]:
        self.texts.append(text)
        return [len(self.texts) - 1]


class _Named(dict[str, int]):
    """Every special token is there, spelled as it is called."""

    def __init__(self, spelling: _Spelling) -> None:
        self._spelling = spelling

    def get(self, name: str, default: Any = None) -> Any:
        return self._spelling.encode(name.removeprefix("\u2581"))[0]


def _text_of(answer: Any) -> tuple[str, int]:
    """The text, and its tokens where the server counts them; a ValueError for anything else."""
    try:
        text = answer["choices"][0]["text"]
    except (LookupError, TypeError) as error:
        raise ValueError(f"an answer without choices[0].text: {str(answer)[:_SHOWN]}") from error
    if not isinstance(text, str):
        raise ValueError(f"choices[0].text is {type(text).__name__}, not text")
    usage = answer.get("usage")
    counted = usage.get("completion_tokens", 0) if isinstance(usage, dict) else 0
    return text, counted if isinstance(counted, int) else 0


def _said(error: urllib.error.HTTPError) -> str:
    try:
        return error.read(_SHOWN).decode("utf-8", "replace").replace("\n", " ") or str(error.reason)
    except OSError:
        return str(error.reason)
