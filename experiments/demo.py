"""`make demo`: trains configs/quickstart.py on Python's standard library, in front of the reader's eyes.

What it is today: a corpus, a tokenizer learnt on it, FIM training on packed rows, greedy text from the trained weights.
The training and inference rooms will replace the rest by the real thing.
"""

import dataclasses
import sys
import time
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from jaxtyping import Int

from codelm import config_io, formats
from codelm.arithmetic import count_parameters
from codelm.config import Config, mesh_shape, resolve
from codelm.data_config import FimConfig
from codelm.errors import UserError
from codelm.lm import LM
from codelm.model import Transformer, create
from codelm.tokenizer import Tokenizer
from data import inputs, tokenizing
from data.dataset import Corpus
from data.loader import Loader, make
from train.step import loss, make_step, optimizer

RUNS = Path("runs")
CACHE = tokenizing.CACHE  # where `codelm data show` finds what was made here
BATCHES = 8  # of held-out text
PROMPTS = ("def __init__(self, ", "import ", "    for ")
HOLE = ("def mean(values):\n    total = ", "\n    return total / len(values)\n")


def main(path: str = "configs/quickstart.py") -> None:
    config = resolve(config_io.load(path))
    mesh_shape(config, jax.device_count())
    corpus = inputs.own_corpus(config, RUNS)
    say_what_it_is(corpus)
    tokenizer = inputs.tokenizer(config, corpus, RUNS)
    seen, unseen = loaders(config, corpus, tokenizer)
    model = train(config, seen)
    held_out = evaluate(model, unseen)
    unigram = unigram_entropy(targets(seen, config.train.steps), targets(unseen, BATCHES), config.model.vocab_size)
    print(f"\nheld-out loss {held_out:.2f} nats/token; unigram entropy {unigram:.2f} (what counting tokens gets)")
    lm = LM(config.model, model, tokenizer, "codelm")
    for prompt in PROMPTS:
        print(f"\n--- the model continues {prompt!r}\n{prompt}{lm.generate(prompt, max_new_tokens=24)}")
    hole = formats.fim(formats.family("codelm"), tokenizer, *HOLE).ids
    middle = tokenizer.decode(cast(list[int], lm.generate(hole, max_new_tokens=12)))
    print(f"\n--- the model fills the hole in {HOLE[0]!r}…{HOLE[1]!r}\n{HOLE[0]}⟦{middle}⟧{HOLE[1]}")


def say_what_it_is(corpus: Corpus) -> None:
    kept, dropped = corpus.manifest["kept"], corpus.manifest["dropped"]
    lost = ", ".join(f"{row['documents']} {reason}" for reason, row in dropped.items())
    print(f"corpus: {kept['documents']} files, {kept['bytes'] / 1e6:.1f} MB; dropped {lost or 'none'}")


def loaders(config: Config, corpus: Corpus, tokenizer: Tokenizer) -> tuple[Loader, Loader]:
    """Of what is trained on, and of held-out text as it is, without holes or paths."""
    plain = dataclasses.replace(config.data, fim=FimConfig(rate=0.0), metadata=0.0)
    seen = make(config, str(corpus.folder), tokenizer, cache=CACHE)
    held_out = dataclasses.replace(config, data=plain)
    unseen = make(held_out, str(corpus.folder), tokenizer, split="validation", cache=CACHE)
    for name, loader in (("train", seen), ("validation", unseen)):
        ((stratum,), rows) = ([rows.stratum for rows in loader.strata], loader.seq_len)
        print(f"{name}: {stratum.documents} files, {stratum.tokens / 1e6:.2f}M tokens in rows of {rows}")
    return seen, unseen


def train(config: Config, loader: Loader) -> Transformer:
    model = create(config.model, config.seed)
    transform = optimizer(config.train)
    state, step = transform.init(cast(Any, model)), make_step(transform)
    print(f"model: {count_parameters(config.model).total / 1e6:.1f}M parameters on {jax.devices()[0].platform}")
    start = time.monotonic()
    for n, batch in enumerate(loader.batches(0, config.train.steps)):
        model, state, value = step(model, state, batch)
        if (n + 1) % max(config.train.steps // 10, 1) == 0:
            value.block_until_ready()
            spent = time.monotonic() - start
            rate = (n + 1) * config.data.seq_len * config.data.batch_size / spent
            left = spent / (n + 1) * (config.train.steps - n - 1)
            print(f"step {n + 1:4}  loss {float(value):.2f}  {rate:,.0f} tokens/s  {left:.0f} s left")
    return model


def evaluate(model: Transformer, loader: Loader) -> float:
    """Mean loss on rows of held-out text, in nats a token."""
    return float(np.mean([jax.jit(loss)(model, batch) for batch in loader.batches(0, BATCHES)]))


def targets(loader: Loader, batches: int) -> Int[np.ndarray, " N"]:
    """The tokens that are learnt in the first batches."""
    return np.concatenate([batch["targets"][batch["loss_weights"] > 0] for batch in loader.batches(0, batches)])


def unigram_entropy(seen: Int[np.ndarray, " N"], held_out: Int[np.ndarray, " M"], vocab_size: int) -> float:
    """Cross-entropy, in nats a token, of held-out tokens under the counts of the rest (plus one each)."""
    counts = np.bincount(seen, minlength=vocab_size) + 1
    return float(-np.log(counts / counts.sum())[held_out].mean())


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted: nothing was written")
