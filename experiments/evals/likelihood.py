"""How likely real source text is to a model: bits per byte, and the loss by how far into its document a token stands.

Both read what a run held out, or NAME:FILE_OR_FOLDER. Tokens of the format (a document's end) are in neither figure;
nor is the first token of a document where the format begins with no token of its own, and so are its bytes not.

- bits-per-byte: each file is a document; of a model with any tokenizer, nats / ln 2 / bytes. A file longer than the
  context is read in windows that overlap by half.
- loss-by-position: mean nats a token, in buckets of positions that double; the same ones for every model, up to its
  context. A document is a file and those that follow it in its repository, because single files are short. It has no
  figure for a bucket that it fills less than half.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from data.document import Document
from experiments.evals import source_files
from experiments.evals.catalogue import Data
from experiments.evals.suite import AS_IS, Metric, NotRun, Outcome, Prompt, Suite, Task, Tools, digest

FILES = 200  # of bits-per-byte
LARGEST = 1 << 14  # characters of such a file that are read
DOCUMENTS = 64  # of loss-by-position
FIRST = 64  # positions in the first bucket
LAST = 1 << 17  # where the last bucket ends
CHARACTERS = 5  # of a token, more than in ordinary code: so that a document fills the context


def bits_per_byte(data: Data) -> Suite:
    documents = source_files.some(source_files.files(data, "bits-per-byte"), FILES)
    tasks = [
        Task(
            f"{number:03} {document.repository}/{document.path}",
            Prompt(document.text[:LARGEST], path=document.path),
            slices={"language": document.language},
        )
        for number, document in enumerate(documents)
    ]

    def attempt(task: Task, tools: Tools) -> Outcome:
        losses = tools.losses(task.prompt.prefix)
        if not len(losses.ends):
            raise NotRun("a file of one token")
        size = losses.ends[-1] - losses.begin
        bits = float(losses.nats.sum(dtype=np.float64)) / math.log(2)
        return Outcome("", {"bits_per_byte": round(bits / size, 6), "bytes": size})

    return _suite("bits-per-byte", "bits per byte of source files", tasks, attempt, {"bits_per_byte": "bits"})


def loss_by_position(data: Data) -> Suite:
    found = source_files.files(data, "loss-by-position")
    tasks = [
        Task(
            f"{number:02} {found[start].repository}/{found[start].path}",
            Prompt(joined(found, start, CHARACTERS * LAST), path=found[start].path),
        )
        for number, start in enumerate(source_files.some(range(len(found)), DOCUMENTS))
    ]

    def attempt(task: Task, tools: Tools) -> Outcome:
        context = tools.context or LAST
        losses = tools.losses(task.prompt.prefix[: CHARACTERS * context])
        scores = by_position(losses.nats[: context - 1])
        if not scores:
            raise NotRun(f"a document of fewer than {FIRST // 2} tokens")
        return Outcome("", scores)

    metrics: dict[str, Metric] = {name: "less" for name, _, _ in buckets()}
    return _suite("loss-by-position", "loss by position in a document", tasks, attempt, metrics)


def joined(documents: Sequence[Document], start: int, characters: int) -> str:
    """A file and those after it in its repository, up to so many characters."""
    texts: list[str] = []
    for document in documents[start:]:
        if document.repository != documents[start].repository or sum(map(len, texts)) >= characters:
            break
        texts.append(document.text if document.text.endswith("\n") else f"{document.text}\n")
    return "".join(texts)[:characters]


def by_position(nats: Float[np.ndarray, " T"]) -> dict[str, float]:
    """Mean loss of each bucket that is filled at least half."""
    return {
        name: round(float(nats[start:stop].mean(dtype=np.float64)), 6)
        for name, start, stop in buckets()
        if len(nats[start:stop]) >= (stop - start) // 2
    }


def buckets() -> list[tuple[str, int, int]]:
    """Name, first position and the one after the last."""
    ends = [FIRST << n for n in range((LAST // FIRST).bit_length())]
    return [(f"nats/{start}-{stop}", start, stop) for start, stop in pairwise([0, *ends])]


def _suite(
    name: str, about: str, tasks: Sequence[Task], attempt: Callable[[Task, Tools], Outcome], metrics: dict[str, Metric]
) -> Suite:
    return Suite(name, 1, about, tasks, attempt, metrics, digest(tasks), AS_IS, samples=False)
