"""Learning rates that carry over across widths: what each array's update is multiplied by, and the coordinate check."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from codelm.config import Config, DataConfig, ModelConfig, TokenizerConfig, TrainConfig, resolve
from codelm.model import Rows, Transformer, rms_norm
from codelm.parameters import all_parameters
from tests.train.stacks import EXPERTS, SOME_EXPERTS, arrays
from train.optimizers import optimizer

BASE = 32
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 64, (4, 17)))


def config_of(width: int, base: int, kind: Any, tied: bool) -> Config:
    """All widths grow together; heads stay as large as they are."""
    heads = width // 16
    sizes = {"width": width, "head_dim": 16, "heads": heads, "kv_heads": heads // 2, "mlp_width": 2 * width}
    model = ModelConfig(depth=2, **sizes, tied_embeddings=tied, compute_dtype="float32", remat="none")
    return resolve(
        Config(
            model=model,
            tokenizer=TokenizerConfig(vocab_size=64),
            data=DataConfig(seq_len=16, batch_size=4),
            train=TrainConfig(learning_rate=0.01, optimizer=kind, mup_base_width=base),
        )
    )


def started(config: ModelConfig) -> Transformer:
    """As the table of parameters says."""
    rng, values = np.random.default_rng(0), {}
    for name, parameter in all_parameters(config).items():
        value = parameter.std(config.depth) * rng.normal(size=parameter.shape) + (parameter.start == "one")
        values[name] = jnp.asarray(value, jnp.float32)
    return Transformer(config, values)


def forward(model: Transformer) -> dict[str, Any]:
    """The stream after the embedding and each layer, and the logits, in float32."""
    tokens, config = TOKENS[:, :-1], model.config
    rows = Rows(jnp.broadcast_to(jnp.arange(16), tokens.shape), jnp.zeros(tokens.shape, jnp.int32))

    def layer(x: jax.Array, block: Any) -> tuple[jax.Array, jax.Array]:
        x, *_ = block(x, rows, 0, None, None)
        return x, x

    first = model.embed(tokens)
    last, layers = jax.lax.scan(layer, first, model.blocks)
    logits = model.logits(rms_norm(last, model.final_norm[...], config.norm_eps))
    return {"embedding": first, "layers": layers, "logits": logits}


def changes(width: int, *, base: int = BASE, kind: str = "adamw", tied: bool = True) -> np.ndarray:
    """Root mean square of what four steps change in the stream after the embedding, after each layer, in logits."""
    config = config_of(width, base, kind, tied)
    transform, rate = optimizer(config.model, config.train), config.train.learning_rate

    def loss(model: Transformer) -> tuple[jax.Array, dict[str, Any]]:
        seen = forward(model)
        chosen = jnp.take_along_axis(jax.nn.log_softmax(seen["logits"]), TOKENS[:, 1:, None], axis=-1)
        return -chosen.mean(), seen

    def step(carry: Any, _: None) -> tuple[Any, dict[str, Any]]:
        model, state = carry
        gradient, seen = jax.grad(loss, has_aux=True)(model)
        added, state = transform.update(gradient, state, model)
        return (jax.tree.map(lambda p, a: p + rate * a, model, added), state), seen

    @jax.jit
    def run(model: Transformer) -> dict[str, Any]:
        _, seen = jax.lax.scan(step, (model, transform.init(model)), length=5)
        return jax.tree.map(lambda x: jnp.sqrt(jnp.mean((x[-1] - x[0]) ** 2, axis=(-3, -2, -1))), seen)

    seen = run(started(config.model))
    return np.array([seen["embedding"], *seen["layers"], seen["logits"]])


def assert_alike(ratios: np.ndarray) -> None:
    assert ((ratios > 1 / 1.6) & (ratios < 1.6)).all(), ratios


def test_coordinate_check() -> None:
    """Eight times the width: everything changes as much with muP, and several times as much without."""
    narrow = changes(BASE)  # as wide as the base, it is the same without
    assert_alike(changes(8 * BASE) / narrow)
    ratios = changes(8 * BASE, base=0) / narrow
    assert (ratios[1:] > 3).all(), ratios


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "stream", "logits"), [("adamw", 2.5, 2.5), ("muon", 1.1, 2.5), ("adafactor", 2.5, 2.5)]
)
def test_coordinate_check_of_all(kind: str, stream: float, logits: float) -> None:
    """With a head of its own. Muon's updates are of full rank, which few tokens do not feel in so few steps."""
    narrow = changes(BASE, kind=kind, tied=False)
    for width in (2 * BASE, 4 * BASE, 8 * BASE):
        assert_alike(changes(width, kind=kind, tied=False) / narrow)
    ratios = changes(8 * BASE, base=0, kind=kind, tied=False) / narrow
    assert (ratios[1:-1] > stream).all(), ratios
    assert ratios[-1] > logits, ratios


@pytest.mark.parametrize("kind", ["adamw", "muon", "adafactor"])
def test_what_follows_the_width(kind: Any) -> None:
    """At four times the base: matrices move a quarter, or by Muon a half; the rest, and what decays, as without."""
    whole = {"embedding", "head", "blocks.attention_norm"}
    names = (*SOME_EXPERTS, *whole, "blocks.query", "blocks.out")

    @jax.jit
    def added(gradients: Any, weights: Any) -> list[Any]:
        settings = [(0, 0.0), (EXPERTS.width // 4, 0.0), (EXPERTS.width // 4, 0.5)]
        trains = [TrainConfig(optimizer=kind, mup_base_width=base, weight_decay=decay) for base, decay in settings]
        transforms = [optimizer(EXPERTS, train) for train in trains]
        return [t.update(gradients, t.init(weights), weights)[0] for t in transforms]

    weights = arrays(EXPERTS, 0, names)
    plain, scaled, decayed = added(arrays(EXPERTS, 1, names), weights)
    for name, x in plain.items():
        share = 1.0 if name in whole else 0.5 if kind == "muon" and name != "blocks.router" else 0.25
        np.testing.assert_allclose(scaled[name], share * x, rtol=1e-5, err_msg=name)
        shrunk = 0.0 if name in whole - {"head"} else 0.5 * weights[name]
        np.testing.assert_allclose(decayed[name], scaled[name] - shrunk, rtol=1e-4, atol=1e-5, err_msg=name)


def test_the_base_itself_is_left_alone() -> None:
    assert config_of(BASE, BASE, "adamw", True).model.logit_multiplier == 1.0
    assert config_of(4 * BASE, BASE, "adamw", True).model.logit_multiplier == 0.25
