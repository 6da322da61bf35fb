"""`make demo`: trains configs/quickstart.py on Python's standard library, in front of the reader's eyes.

What it is today: a tokenizer learnt on the corpus, plain next-token training on random windows, greedy text from the
trained weights. The data, training and inference rooms will replace its parts by the real pipeline.
"""

import sys
import time
from typing import Any, cast

import jax
import numpy as np

import data.stdlib
from codelm import config_io, tokenizer_training
from codelm.arithmetic import count_parameters
from codelm.config import Config, mesh_shape, resolve
from codelm.errors import UserError
from codelm.lm import LM
from codelm.model import Transformer, create
from codelm.sentencepiece_tokenizer import from_proto
from codelm.tokenizer import END_OF_TEXT, Tokenizer
from data.windows import batch
from train.step import loss, make_step, optimizer

HELD_OUT = 0.05  # share of the tokens, at the end, that training never sees
PROMPTS = ("def __init__(self, ", "import ", "    for ")


def main(path: str = "configs/quickstart.py") -> None:
    config = resolve(config_io.load(path))
    mesh_shape(config, jax.device_count())
    tokenizer, tokens = corpus(config)
    split = int(len(tokens) * (1 - HELD_OUT))
    model = train(config, tokens[:split])
    held_out = evaluate(model, config, tokens[split:])
    unigram = unigram_entropy(tokens[:split], tokens[split:], config.model.vocab_size)
    print(f"\nheld-out loss {held_out:.2f} nats/token; unigram entropy {unigram:.2f} (what counting tokens gets)")
    lm = LM(config.model, model, tokenizer, "codelm")
    for prompt in PROMPTS:
        print(f"\n--- the model continues {prompt!r}\n{prompt}{lm.generate(prompt, max_new_tokens=24)}")


def corpus(config: Config) -> tuple[Tokenizer, np.ndarray]:
    """A tokenizer learnt on the standard library, and the library's documents as one array of ids."""
    files = data.stdlib.files()
    size = sum(file.size for file in files)
    start = time.monotonic()
    texts = list(data.stdlib.documents(files))
    lines = (line for text in texts for line in text.splitlines(keepends=True))
    tokenizer = from_proto(tokenizer_training.train(lines, config.tokenizer.vocab_size))
    end = tokenizer.special[END_OF_TEXT]
    tokens = np.array([i for text in texts for i in [*tokenizer.encode(text), end]], np.int32)
    print(
        f"corpus: {len(files)} files of Python {sys.version.split()[0]}'s standard library, {size / 1e6:.1f} MB, "
        f"{len(tokens) / 1e6:.2f}M tokens of {size / len(tokens):.2f} bytes ({time.monotonic() - start:.0f} s)"
    )
    return tokenizer, tokens


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
