# %% [markdown]
# # Induction, and the logit lens
#
# Two classic looks into a small transformer. *Induction*: a text that repeats can be predicted by looking up what came
# last time, which takes two layers that work together, and which models learn rather suddenly. *The logit lens*: the
# head of the model reads the stream after every layer, as if the model ended there.

# %%
import numpy as np

import codelm
from experiments.curves import Axes, Series, chart
from experiments.notebooks.looking import attention, first_layers, losses, texts
from experiments.notebooks.showing import run_folder, show

LENGTH, TEXTS = 24, 8
run = run_folder()
lm = codelm.load(run)
tokenizer = lm.tokenizer
assert tokenizer
plain = np.array([i for i in range(tokenizer.vocab_size) if tokenizer.pieces[i]])  # not the special ones
rng = np.random.default_rng(0)

# %% [markdown]
# ## Random tokens, twice
#
# Nothing predicts the first copy: its loss is that of guessing, or worse. The second copy can be known in full from the
# first. The *induction score* is the difference in nats a token: 0 for a model that does not look back. Expect little
# of a model that trained for minutes: it has hardly begun to learn this.

# %%
repeated = [rng.choice(plain, LENGTH).tolist() * 2 for _ in range(TEXTS)]
nats = np.mean([losses(lm, ids) for ids in repeated], axis=0)
first, second = nats[1:LENGTH], nats[LENGTH + 1 :]
print(f"first copy {first.mean():.2f} nats/token, second {second.mean():.2f}: score {first.mean() - second.mean():.2f}")
copies = [Series(name, range(1, LENGTH), part) for name, part in (("first copy", first), ("second copy", second))]
show("Loss of random tokens twice", chart(copies, Axes("Loss", "tokens into the copy", "nats/token")), run)

# %% [markdown]
# ## Which heads look back
#
# In the second copy, an induction head at a token reads the token *after* the same one in the first copy: LENGTH - 1
# back. The figure is the share of its attention that goes there; a head that spreads evenly over all it sees gives it
# about 1 / 36.

# %%
here = np.arange(LENGTH, 2 * LENGTH - 1)
scores = np.mean([attention(lm.model, ids)[:, :, here, here - LENGTH + 1] for ids in repeated], axis=(0, 3))
by_layer = [
    Series(f"layer {layer}", range(len(of_layer)), of_layer, line=False, points=True)
    for layer, of_layer in enumerate(scores)
]
best = np.unravel_index(np.argmax(scores), scores.shape)
print(f"most: layer {best[0]}, head {best[1]}, {scores[best]:.1%} of its attention")
show("Attention to what came next", chart(by_layer, Axes("Induction by head", "head", "share of attention")), run)

# %% [markdown]
# ## The logit lens
#
# What the model would say if it ended after one layer, two, and so on. Early layers speak of the token at hand, later
# ones of the next; where the answer stands in a layer's column, the rest of the model only makes it surer.

# %%
ids = tokenizer.encode_document("import os\n\n\ndef main(path):\n    with open(path) as file:\n        return ")
told = texts(tokenizer, ids)
ending = [first_layers(lm, depth) for depth in range(1, lm.config.depth + 1)]
says = [texts(tokenizer, one.logits([ids])[0].argmax(axis=-1).tolist()) for one in ending]
rows = "".join(
    f"<tr><td><code>{token!r}</code></td>{''.join(f'<td><code>{said[n]!r}</code></td>' for said in says)}</tr>"
    for n, token in enumerate(told)
)
head = "".join(f"<th>after layer {n}</th>" for n in range(lm.config.depth))
show("What each layer would say next", f"<table><tr><th>token</th>{head}</tr>{rows}</table>", run)

# %%
by_depth = [float(np.nanmean(losses(one, ids))) for one in ending]
print("nats/token after each layer:", ", ".join(f"{loss:.2f}" for loss in by_depth))
line = [Series("", range(1, lm.config.depth + 1), by_depth, points=True)]
show("Loss after each layer", chart(line, Axes("Loss if the model ended there", "layers", "nats/token")), run)
