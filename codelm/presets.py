"""Model sizes people use, each the depth dial plus what its published relatives do differently."""

from codelm.config import ModelConfig, MoEConfig

PRESETS: dict[str, ModelConfig] = {
    # Small enough to learn something in a minute on two CPU cores.
    "quickstart": ModelConfig(depth=4, vocab_size=0, compute_dtype="float32", remat="none", unroll=4),
    "150m": ModelConfig(depth=14),
    "400m": ModelConfig(depth=18),
    # The shape of the 1.3B code models (24 layers of 2048) with grouped keys and values.
    "1.3b": ModelConfig(depth=24, width=2048, heads=16, kv_heads=8, mlp_width=5632, tied_embeddings=False),
    "3b": ModelConfig(depth=28),
    # Mistral-7B's shape: 8 key/value heads and a wider feed-forward than the dial's.
    "7b": ModelConfig(depth=32, mlp_width=14336, tied_embeddings=False),
    # DeepSeekMoE-16B's shape: many small experts, two of them for every token.
    "moe-16b": ModelConfig(
        depth=28,
        width=2048,
        heads=16,
        kv_heads=16,
        mlp_width=10944,
        tied_embeddings=False,
        moe=MoEConfig(experts=64, top_k=6, shared_experts=2, expert_width=1408),
    ),
}
