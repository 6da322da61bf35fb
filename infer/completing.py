"""Text in, text out: what `lm.generate`, `lm.infill` and the commands do, through the engine that a model keeps."""

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from codelm.errors import UserError
from codelm.format_table import Mode
from codelm.formats import Repository
from codelm.lm import LM, Prompt
from infer import uncached
from infer.engine import Engine
from infer.healing import heal as healed
from infer.prompts import prompt_and_ends, text_ends, tokenizer_of
from infer.request import Finish, Priority, Request, Text, Timing
from infer.sampling import Sampling


@dataclass(frozen=True)
class Completion:
    """One text, and what it took."""

    text: str
    ids: list[int]
    """Its tokens; of a healed prompt also those that its end was read into."""
    finish: Finish
    mean_logprob: float
    timing: Timing


@functools.lru_cache(maxsize=4)
def engine_of(lm: LM) -> Engine:
    """The one that all of a model's calls share, with its cache."""
    return Engine(lm)


def generate(
    lm: LM,
    prompts: Sequence[Prompt],
    max_new_tokens: int,
    sampling: Mapping[str, Any],
    seed: int,
    stop: Collection[int | str],
) -> list[str | list[int]]:
    """What follows each prompt, all of them at once: text for text, ids for ids. Texts stop at tokens that end one."""
    stop_ids = {each for each in stop if not isinstance(each, str)}
    strings = tuple(each for each in stop if isinstance(each, str))
    requests = []
    for prompt in prompts:
        if isinstance(prompt, str):
            tokenizer = tokenizer_of(lm)
            ids, ends = tokenizer.encode_document(prompt), stop_ids | text_ends(tokenizer)
        else:
            ids, ends = [int(i) for i in prompt], stop_ids
        requests.append(Request(ids, max_new_tokens, Sampling(**sampling), seed, stop_ids=ends, stop=strings))
    texts = [text for (text,), _ in written(lm, requests)]
    return [text.text if isinstance(prompt, str) else text.ids for prompt, text in zip(prompts, texts, strict=True)]


def infill(
    lm: LM,
    holes: Sequence[tuple[str, str]],
    max_new_tokens: int,
    *,
    n: int = 1,
    mode: Mode | None = None,
    path: str | None = None,
    repo: Repository | None = None,
    sampling: Mapping[str, Any] | None = None,
    seed: int = 0,
    stop: Sequence[str] = (),
    heal: Literal["", "prefix", "both"] = "prefix",
    family: str = "",
    priority: Priority = "interactive",
) -> list[list[Completion]]:
    """What belongs between each prefix and suffix, n times; all of them at once.

    Of a file too long for the context, what is nearest to the hole is read; of other files (`repo`), those that come
    last, in what room is left. `heal` takes back tokens that the cursor
    may have cut, of the prefix or of both, and writes them again whole (see `infer.healing`). A model without a
    fill-in-the-middle format continues the prefix, and takes no suffix.
    """
    tokenizer = tokenizer_of(lm)
    requests = []
    for prefix, suffix in holes:
        room = lm.config.max_seq_len - max_new_tokens
        prompt, ends = prompt_and_ends(lm, prefix, suffix, room, mode=mode, path=path, name=family, repo=repo)
        ids, healing = healed(tokenizer, prompt, suffix=heal == "both") if heal else (prompt.ids, None)
        requests.append(
            Request(
                ids,
                max_new_tokens + len(prompt.ids) - len(ids),  # what was taken out is written again, and does not count
                Sampling(**sampling or {}),
                seed,
                stop_ids=ends,
                stop=stop,
                logprobs=True,
                n=n,
                priority=priority,
                restriction=healing,
            )
        )
    return [
        [Completion(text.text, text.ids, text.finish, text.mean_logprob, timing) for text in texts]
        for texts, timing in written(lm, requests)
    ]


def written(lm: LM, requests: Sequence[Request]) -> list[tuple[list[Text], Timing]]:
    """The texts of each request, all at once; of all or, where one is refused or fails, of none."""
    if lm.config.rope.scaling == "dynamic":  # nothing to cache: see infer.uncached
        found = [uncached.written(lm, request) for request in requests]
    else:
        engine, streams = engine_of(lm), []
        try:
            for request in requests:
                streams.append(engine.submit(request))  # noqa: PERF401  (those before one that is refused are cancelled)
            found = [(stream.texts(), stream.timing) for stream in streams]
        finally:
            for stream in streams:
                stream.cancel()
    for texts, _ in found:
        if failed := next((text for text in texts if text.finish == "error"), None):
            raise UserError(failed.error)
    return found
