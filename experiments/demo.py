"""`make demo`: trains configs/quickstart.py on Python's standard library, in front of the reader's eyes.

What it is today: a corpus built by `codelm data build`, a tokenizer learnt on it, plain next-token training on random
windows, greedy text from the trained weights. The training and inference rooms will replace the rest by the real thing.
"""

import os
import sys
import time
from typing import Any, cast

import jax
import numpy as np

from codelm import config_io, tokenizer_training
from codelm.arithmetic import count_parameters
from codelm.config import Config, mesh_shape, resolve
from codelm.errors import UserError
from codelm.lm import LM
from codelm.model import Transformer, create
from codelm.sentencepiece_tokenizer import from_proto
from codelm.tokenizer import END_OF_TEXT, Tokenizer
from data.build import build
from data.dataset import Corpus
from data.plan import Settings
from data.windows import batch
from train.step import loss, make_step, optimizer

RUNS = "runs"
_MEMORY = 64 << 20  # bytes for finding duplicates
PROMPTS = ("def __init__(self, ", "import ", "    for ")


def main(path: str = "configs/quickstart.py") -> None:
    config = resolve(config_io.load(path))
    mesh_shape(config, jax.device_count())
    corpus = build_corpus(config)
    tokenizer = learn_tokenizer(corpus, config)
    seen, unseen = (tokens_of(corpus, split, tokenizer) for split in ("train", "validation"))
    model = train(config, seen)
    held_out = evaluate(model, config, unseen)
    unigram = unigram_entropy(seen, unseen, config.model.vocab_size)
    print(f"\nheld-out loss {held_out:.2f} nats/token; unigram entropy {unigram:.2f} (what counting tokens gets)")
    lm = LM(config.model, model, tokenizer, "codelm")
    for prompt in PROMPTS:
        print(f"\n--- the model continues {prompt!r}\n{prompt}{lm.generate(prompt, max_new_tokens=24)}")


def build_corpus(config: Config) -> Corpus:
    """The corpus of the run, built anew when its sources or its config are not what they were."""
    settings = Settings(
        out=f"{RUNS}/{config.name}/corpus",
        memory=_MEMORY,
        benchmarks=os.environ.get("CODELM_BENCHMARKS", ""),
        overwrite=True,
    )
    corpus = build(config.corpus, settings)
    kept, dropped = corpus.manifest["kept"], corpus.manifest["dropped"]
    lost = ", ".join(f"{row['documents']} {reason}" for reason, row in dropped.items())
    print(f"corpus: {kept['documents']} files, {kept['bytes'] / 1e6:.1f} MB; dropped {lost or 'none'}")
    return corpus


def learn_tokenizer(corpus: Corpus, config: Config) -> Tokenizer:
    lines = (line for document in corpus.documents("train") for line in document.text.splitlines(keepends=True))
    return from_proto(tokenizer_training.train(lines, config.tokenizer.vocab_size))


def tokens_of(corpus: Corpus, split: str, tokenizer: Tokenizer) -> np.ndarray:
    """The documents of a split as one array of ids, each with its end."""
    end = tokenizer.special[END_OF_TEXT]
    texts = [document.text for document in corpus.documents(split)]
    tokens = np.array([i for text in texts for i in [*tokenizer.encode(text), end]], np.int32)
    size = sum(len(text.encode()) for text in texts) / len(tokens)
    print(f"{split}: {len(texts)} files, {len(tokens) / 1e6:.2f}M tokens of {size:.2f} bytes")
    return tokens


def train(config: Config, tokens: np.ndarray) -> Transformer:
    model = create(config.model, config.seed)
    transform = optimizer(config.train)
    state, step = transform.init(cast(Any, model)), make_step(transform)
    rows = (config.data.seq_len, config.data.batch_size, config.seed)
    print(f"model: {count_parameters(config.model).total / 1e6:.1f}M parameters on {jax.devices()[0].platform}")
    start = time.monotonic()
    for n in range(config.train.steps):
        model, state, value = step(model, state, batch(tokens, *rows, n))
        if (n + 1) % max(config.train.steps // 10, 1) == 0:
            value.block_until_ready()
            spent = time.monotonic() - start
            rate = (n + 1) * config.data.seq_len * config.data.batch_size / spent
            left = spent / (n + 1) * (config.train.steps - n - 1)
            print(f"step {n + 1:4}  loss {float(value):.2f}  {rate:,.0f} tokens/s  {left:.0f} s left")
    return model


def evaluate(model: Transformer, config: Config, tokens: np.ndarray, batches: int = 8) -> float:
    """Mean loss on windows of held-out text, in nats a token."""
    rows = (config.data.seq_len, config.data.batch_size, config.seed)
    return float(np.mean([jax.jit(loss)(model, batch(tokens, *rows, n)) for n in range(batches)]))


def unigram_entropy(seen: np.ndarray, held_out: np.ndarray, vocab_size: int) -> float:
    """Cross-entropy, in nats a token, of held-out text under the token counts of the rest (plus one each)."""
    counts = np.bincount(seen, minlength=vocab_size) + 1
    return float(-np.log(counts / counts.sum())[held_out].mean())


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was written")
