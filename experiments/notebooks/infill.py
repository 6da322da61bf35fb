# %% [markdown]
# # Load a run, and fill holes
#
# A run's folder is all there is to a model: `codelm.load` finds its newest checkpoint, its tokenizer and the prompt
# format that it was trained in. Fill-in-the-middle (FIM) gives it what stands before and after a cursor; it writes what
# belongs between, and has to notice by itself when that is enough.

# %%
import codelm
from codelm import config_io
from codelm.midtraining import midtrained
from data import inputs
from experiments import records, report_samples
from experiments.notebooks.showing import run_folder, show
from experiments.report_samples import Sample
from train import infilling

run = run_folder()
lm = codelm.load(run)
print(f"{run.name}: {lm.config.depth} layers of {lm.config.width}, {lm.config.vocab_size:,} tokens, from {lm.source}")

# %% [markdown]
# ## A hole of your own
#
# Blue is before the hole and green after it. A small model knows what Python looks like long before it knows what is
# meant: expect the shape of an expression, not the right one.

# %%
prefix, suffix = "def mean(values):\n    total = ", "\n    return total / len(values)\n"
filled = lm.infill(prefix, suffix, max_new_tokens=24)
print(f"{filled.text!r}: stopped by {filled.finish}, {filled.mean_logprob:.2f} nats a token")
show("A hole of your own", report_samples.grid([Sample("", prefix, filled.text, suffix)]), run)

# %% [markdown]
# ## The same hole, several times
#
# At temperature 0 the likeliest token is taken every time. Above it the model draws, and what it draws differs where it
# is unsure: the spread says more than the one text.

# %%
for drawn in lm.infill(prefix, suffix, max_new_tokens=24, n=4, sampling={"temperature": 0.8}, seed=0):
    print(f"{drawn.mean_logprob:6.2f}  {drawn.text!r}")

# %% [markdown]
# ## Holes in held-out files
#
# These files were kept from training, so that what stood in their holes is an answer to compare with. `exact` is
# strict: a different name for the same thing is wrong. `similarity` counts the characters that would have to change.
# The figures are those of the run's report, measured again.

# %%
config = config_io.load(run / records.CONFIG)
corpus, tokenizer = inputs.left_in(run, config)
last = midtrained(config) if config.midtrain.steps else config
measured, holes = infilling.make(last, str(corpus.folder) if corpus else "", tokenizer).measure(lm.model)
print({name: round(value, 3) for name, value in measured.items()}, "of", len(holes))
best = sorted(holes, key=lambda hole: -hole.similarity)[:3]
shown = [Sample(h.hole.path, h.hole.prefix, h.completion, h.hole.suffix, h.hole.middle, h.exact) for h in best]
show("The best of the held-out holes", report_samples.LEGEND + report_samples.grid(shown), run)
