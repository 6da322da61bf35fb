# %% [markdown]
# # Reading a completion: loss and attention, token by token
#
# A completion is one text, but a model has an opinion about each of its tokens. Two ways to look at it: how surprised
# the model is by each token, and which earlier tokens it reads while it decides on the next.

# %%
import numpy as np

import codelm
from codelm import formats
from experiments.notebooks.looking import attention, losses, texts
from experiments.notebooks.showing import heads, run_folder, shaded, show
from infer.prompts import family_of

run = run_folder()
lm = codelm.load(run)
tokenizer = lm.tokenizer
assert tokenizer
prefix, suffix = "def mean(values):\n    total = ", "\n    return total / len(values)\n"
written = lm.infill(prefix, suffix, max_new_tokens=16, heal="").text
print(f"the model fills in {written!r}")

# %% [markdown]
# ## Loss of each token
#
# Twice the same hole: with what the model wrote, and with what a person would write. The darker a token, the more
# surprised the model is by it (point at one to see its nats). Prompt tokens are shown too: names that come again are
# cheaper than the first time, and right after a sentinel anything may come. What a person writes is rarely as cheap as
# what the model writes: it takes the likeliest at every step.


# %%
def read(middle: str) -> tuple[list[int], np.ndarray]:
    """Ids of prompt, middle and end, and their losses."""
    ids = formats.fim(family_of(lm), tokenizer, prefix, suffix, middle).ids
    return ids, losses(lm, ids)


shown = ""
for who, middle in (("the model", written), ("a person", "sum(values)")):
    ids, nats = read(middle)
    prompt = len(formats.fim(family_of(lm), tokenizer, prefix, suffix).ids)
    shown += f"<p>By {who}: {nats[prompt:].mean():.2f} nats a token of the middle, its end included</p>"
    shown += shaded(texts(tokenizer, ids), nats.tolist(), 8.0, "nats")
show("Loss of each token", shown, run)

# %% [markdown]
# ## What is read while one token is decided
#
# The token that surprises the model most in the person's middle: which tokens were read just before it, by layer, as
# the mean of its heads. What is decided at a position is read from the position before.

# %%
ids, nats = read("sum(values)")
at = prompt + int(np.argmax(nats[prompt:]))
weights = attention(lm.model, ids)
shown = f"<p>Before {texts(tokenizer, ids)[at]!r}, of {nats[at]:.1f} nats:</p>"
for layer, of_layer in enumerate(weights):
    seen = [*of_layer[:, at - 1].mean(axis=0).tolist()[:at], *[np.nan] * (len(ids) - at)]
    shown += f"<p>Layer {layer}</p>{shaded(texts(tokenizer, ids), seen, max(seen[:at]), 'of the attention')}"
show("What is read before one token", shown, run)

# %% [markdown]
# ## All heads
#
# A row for each token, a column for each token that it reads. A dark diagonal is a head that looks at the token itself,
# one beside it a head that looks at the token before; a dark first column is a head with nothing to do, which rests on
# the first token.

# %%
show("Attention of every head", heads(weights), run)
