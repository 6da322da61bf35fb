"""What a config costs: worked values from the literature, counts by enumeration, the real model's parameters."""

import jax
import numpy as np
import pytest

from codelm.arithmetic import count_parameters, kv_bytes_per_token, training_flops_per_token, weight_bytes
from codelm.config import ModelConfig, MoEConfig, dial
from codelm.model import create
from codelm.presets import PRESETS


def test_kv_cache_of_a_70b_model() -> None:
    """80 layers, 8 KV heads of 128, 4096 tokens, 2 bytes: 1,342,177,280 bytes; without grouping eight times that."""
    grouped = ModelConfig(depth=80, kv_heads=8, heads=64, head_dim=128)
    full = ModelConfig(depth=80, kv_heads=64, heads=64, head_dim=128)
    assert 4096 * kv_bytes_per_token(grouped) == 1_342_177_280
    assert kv_bytes_per_token(full) == 8 * kv_bytes_per_token(grouped)
    assert kv_bytes_per_token(grouped, "int8") == kv_bytes_per_token(grouped, "float32") // 4


def test_swiglu_width_of_llama_7b() -> None:
    """8/3 of 4096 is 10922, rounded up to 11008."""
    assert dial(ModelConfig(width=4096), 1).mlp_width == 11008


def test_llama_7b_has_its_published_size() -> None:
    """6,738,415,616 parameters: the sum of meta-llama/Llama-2-7b's tensors."""
    llama = ModelConfig(depth=32, width=4096, heads=32, kv_heads=32, mlp_width=11008, tied_embeddings=False)
    assert count_parameters(dial(llama, 32_000)).total == 6_738_415_616


def test_mixtral_8x7b_has_its_published_size() -> None:
    """46.7B in all, 12.9B active (arXiv 2401.04088)."""
    moe = MoEConfig(experts=8, top_k=2, expert_width=14336)
    mixtral = ModelConfig(depth=32, width=4096, heads=32, kv_heads=8, mlp_width=14336, tied_embeddings=False, moe=moe)
    counted = count_parameters(dial(mixtral, 32_000))
    assert (round(counted.total / 1e9, 1), round(counted.active / 1e9, 1)) == (46.7, 12.9)


@pytest.mark.parametrize("name", PRESETS)
def test_the_model_has_the_parameters_counted(name: str) -> None:
    config = dial(PRESETS[name], 49_152)
    shapes = jax.eval_shape(lambda: create(config, 0))
    total = sum(leaf.size for leaf in jax.tree.leaves(shapes))
    assert count_parameters(config).total == total
    assert weight_bytes(config) == 2 * total


@pytest.mark.parametrize(
    ("name", "billions"), [("150m", 0.15), ("400m", 0.4), ("1.3b", 1.3), ("3b", 3), ("7b", 7), ("moe-16b", 16)]
)
def test_presets_have_the_size_of_their_name(name: str, billions: float) -> None:
    total = count_parameters(dial(PRESETS[name], 49_152)).total
    assert abs(total / 1e9 - billions) < 0.1 * billions


def test_training_flops_by_enumeration() -> None:
    """Every multiply of every matrix product of one row, counted one by one; attention at half (causal)."""
    model = dial(ModelConfig(depth=3, width=64, heads=4, kv_heads=2, head_dim=16, mlp_width=96), 50)
    seq = 8
    layer = [(64, 4 * 16), (64, 2 * 16), (64, 2 * 16), (4 * 16, 64), (64, 96), (64, 96), (96, 64)]
    forward = sum(2 * rows * columns for rows, columns in layer) * 3 + 2 * 64 * 50
    scores_and_values = np.mean([2 * 2 * 4 * 16 * seq / 2 for _ in range(seq)]) * 3
    assert training_flops_per_token(model, seq) == 3 * (forward + scores_and_values)


def test_heads_that_look_ahead_by_enumeration() -> None:
    """Two matrices of 64 x 64 a head and the output table of 50 rows once more; serving touches none of it."""
    sizes = {"depth": 1, "width": 64, "heads": 4, "kv_heads": 2, "head_dim": 16, "mlp_width": 96}
    plain, ahead = (dial(ModelConfig(**sizes, mtp_heads=heads), 50) for heads in (0, 3))
    more = training_flops_per_token(ahead, 8) - training_flops_per_token(plain, 8)
    assert more == 3 * 3 * 2 * (2 * 64 * 64 + 64 * 50)
    before, after = count_parameters(plain), count_parameters(ahead)
    assert after.total - before.total == 3 * 2 * 64 * 64
    assert (after.active, after.embedding) == (before.active, before.embedding)
    assert after.total == sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(lambda: create(ahead, 0))))


def test_gpt3_rule_of_thumb() -> None:
    """6 N D: 175e9 parameters, 300e9 tokens, 3.15e23 FLOPs; ours adds attention, so it is a little above."""
    gpt3 = dial(ModelConfig(depth=96, width=12288, heads=96, kv_heads=96, head_dim=128, mlp_width=32768), 50_257)
    assert 1.0 < training_flops_per_token(gpt3, 2048) * 300e9 / 3.15e23 < 1.05


def test_windows_cost_what_they_see() -> None:
    """Keys seen by each query of a row, counted one by one, in every second layer."""
    sizes = {"depth": 4, "width": 64, "heads": 4, "kv_heads": 4, "head_dim": 16, "mlp_width": 96}
    full = dial(ModelConfig(**sizes), 50)
    slides = dial(ModelConfig(**sizes, sliding_window=10, full_attention_every=2), 50)
    seq = 1000
    # a causal row by convention sees half of itself, so position i counts i + 1/2
    seen = sum(min(i + 0.5, 10) for i in range(seq)) / seq
    saved = training_flops_per_token(full, seq) - training_flops_per_token(slides, seq)
    assert saved == pytest.approx(2 * 12 * 4 * 16 * (seq / 2 - seen), rel=1e-3)
