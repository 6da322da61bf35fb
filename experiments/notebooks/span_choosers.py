# %% [markdown]
# # Which holes to dig: an ablation of FIM span choosers
#
# Training for fill-in-the-middle takes a middle out of a document and puts it last. Which middle is a choice:
#
# - `characters`: between two random characters, so mostly from the midst of one word to the midst of another;
# - `lines`: whole lines;
# - `causal`: from where an editor would offer a completion (after `(`, `=`, `return`, …) to the end of the line.
#
# A model gets good at the holes it sees. This notebook trains one small model with each chooser, on the run's own
# corpus and tokenizer, and asks each for the loss on the middles of all three.

# %%
from dataclasses import replace

import numpy as np

from codelm import config_io, formats
from codelm.config import resolve
from codelm.data_config import SpansConfig
from data import inputs, loader
from data.fim import Digger
from data.spans import NoSpan
from experiments import records, report_samples
from experiments.curves import Axes, Series, chart
from experiments.notebooks.showing import FIGURES, run_folder, show
from experiments.report_samples import Sample
from train import held_out
from train.step import make_steps
from train.trainer import fresh_state

CHOOSERS = ("characters", "lines", "causal")
STEPS = 40
run = run_folder()
config = resolve(config_io.load(run / records.CONFIG))
corpus, tokenizer = inputs.left_in(run, config)
assert corpus, "this notebook reads the run's own corpus"
cache = run / FIGURES / "cache"
fim = replace(config.data.fim, causal_context=config.data.seq_len // 2)  # so that it digs in files longer than a row

# %% [markdown]
# ## What the choosers choose
#
# The same document, dug by each: the marked part is what the model would be asked for.

# %%
document = next(iter(corpus.documents("validation")))
text, family = document.text[:800], formats.family(config.tokenizer.family)
shown = []
for name in CHOOSERS:
    digger = Digger(held_out.only(fim, name), family, tokenizer)
    dug = digger.dig(text, document.language, np.random.default_rng(3))
    if not isinstance(dug, NoSpan):
        shown.append(Sample(f"{name}: {len(dug.middles[0])} characters", dug.parts[0], dug.middles[0], dug.parts[1]))
show("Middles by chooser", report_samples.grid(shown), run)

# %% [markdown]
# ## Training
#
# Everything but the chooser is the same: seed, documents, steps. Every document has a hole, so that a few dozen steps
# show something.

# %%
short = replace(config.train, steps=STEPS, warmup_steps=4, accumulate=1, batch_warmup_steps=0)
base = replace(config, train=short, midtrain=replace(config.midtrain, steps=0))
models, training, step = {}, [], make_steps(base).whole
for name in CHOOSERS:
    told = replace(base, data=replace(base.data, fim=held_out.only(fim, name)))
    batches = loader.make(told, str(corpus.folder), tokenizer, cache=cache)
    state, curve = fresh_state(base), []
    for number in range(STEPS):
        state, metrics = step(state, batches.batch(number))
        curve.append(float(metrics["loss"]))
    models[name] = state.model
    training.append(Series(name, range(1, STEPS + 1), curve))
    print(f"trained on {name}: loss {curve[0]:.2f} → {curve[-1]:.2f}")
show("Training by chooser", chart(training, Axes("Training loss", "steps", "nats/token")), run)

# %% [markdown]
# ## Each on the middles of all
#
# A row is a model, a column the kind of middle that it is asked for; the figure is nats a token of the middles. Read
# down a column: is the model that was trained on such holes the best there? The columns themselves do not compare, as
# their tokens are others. After so few steps the differences are small, and another seed may turn them around; with
# `codelm run` and `codelm compare` the same comparison can be made at any length.

# %%
every = replace(fim, rate=1.0, spans=SpansConfig(**dict.fromkeys(CHOOSERS, 1.0)))
asked = held_out.make(replace(base, data=replace(base.data, fim=every)), str(corpus.folder), tokenizer, cache)
found = {name: asked.measure(model) for name, model in models.items()}
rows = "".join(
    f"<tr><td>{name}</td>"
    + "".join(f"<td class=n>{losses.get(f'held_out/fim_loss/{kind}', np.nan):.3f}</td>" for kind in CHOOSERS)
    + "</tr>"
    for name, losses in found.items()
)
head = "".join(f"<th class=n>on {kind}</th>" for kind in CHOOSERS)
show("Loss of middles", f"<table><tr><th>trained by</th>{head}</tr>{rows}</table>", run)
