"""Experiment configs: frozen typed dataclasses, one depth dial, validation, fingerprint.

A config file is Python and returns one (`def config() -> Config`). Sizes left at 0 are set by the depth dial when the
config is resolved; everything that runs takes a resolved config. `codelm.config_io` reads and writes them.
"""

import dataclasses
import hashlib
import json
import math
import re
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

from codelm import formats
from codelm.config_checks import lookup, require, validate_corpus, validate_data, validate_training
from codelm.corpus_config import CorpusConfig
from codelm.data_config import DataConfig
from codelm.train_config import CheckpointConfig, EvaluationConfig, MidtrainConfig, TrackConfig, TrainConfig

NAMES = r"\w[\w.=+,-]*"  # what experiments may be called: a folder, here and on gs://
# Fields that say where or how an experiment runs, not what it computes: they stay out of the fingerprint.
WHERE_IT_RUNS = (
    "name",
    "mesh",
    "model.remat",
    "model.unroll",
    "model.attention",
    "corpus.benchmarks",
    "checkpoint",
    "track",
)


@dataclass(frozen=True)
class RopeConfig:
    """Rotary position embedding."""

    theta: float = 10_000.0
    """Base of the rotation wavelengths; larger bases reach longer contexts."""
    scaling: Literal["none", "linear", "dynamic", "llama3", "yarn"] = "none"
    """How a model is stretched past the length it was trained at."""
    factor: float = 1.0
    """By how much."""
    original_seq_len: int = 0
    """The length it was trained at; every scaling but linear needs it."""
    low_freq_factor: float = 1.0
    """llama3: wavelengths above original_seq_len over this are stretched in full."""
    high_freq_factor: float = 4.0
    """llama3: wavelengths below original_seq_len over this are left alone."""
    beta_fast: float = 32.0
    """yarn: dimensions that turn more often than this over the original length are left alone."""
    beta_slow: float = 1.0
    """yarn: dimensions that turn less often than this are stretched in full."""
    attention_factor: float = 0.0
    """yarn: multiplies rotated queries and keys; 0 = 0.1 ln(factor) + 1, or from the two mscale fields."""
    mscale: float = 0.0
    """yarn: with mscale_all_dim, gives attention_factor as DeepSeek computes it."""
    mscale_all_dim: float = 0.0
    """yarn: see mscale."""
    truncate: bool = True
    """yarn: round the bounds of the ramp to whole dimensions."""


@dataclass(frozen=True)
class MoEConfig:
    """Mixture of experts in place of the feed-forward; 0 experts is a dense model."""

    experts: int = 0
    """Routed experts in each layer; 0 = dense."""
    top_k: int = 2
    """Routed experts each token goes to."""
    shared_experts: int = 0
    """Experts every token goes through."""
    expert_width: int = 0
    """Hidden width of one expert; 0 = model.mlp_width / top_k, rounded up to a multiple of 64."""
    renormalise: bool = True
    """The weights of a token's top_k experts sum to one."""
    capacity_factor: float = 0.0
    """Room of one expert relative to an even share; what does not fit is dropped. 0 = dropless."""
    balance: Literal["loss", "bias", "none"] = "loss"
    """How the load is evened out: by a loss, by a bias on the selection that follows the load, or not."""
    balance_weight: float = 0.01
    """Weight of the load-balance loss, or the step of the bias."""
    router_z_weight: float = 0.0
    """Weight of the squared log-partition of the router's logits."""


@dataclass(frozen=True)
class ModelConfig:
    """The network. Sizes left at 0 come from the depth dial (see `dial`)."""

    depth: int = 4
    """Layers, and the dial: width, heads, feed-forward and learning rate follow from it where they are 0."""
    width: int = 0
    """Residual stream width; 0 = from depth."""
    heads: int = 0
    """Query heads; 0 = width / head_dim."""
    kv_heads: int = 0
    """Key/value heads, a divisor of heads; 0 = largest power of two dividing heads, at most 8 and heads / 2."""
    head_dim: int = 0
    """Size of one head; 0 = 64 below width 2048, 128 from there."""
    mlp_width: int = 0
    """Feed-forward hidden width; 0 = 8/3 width, rounded up to a multiple of 128."""
    vocab_size: int = 0
    """Rows of the embedding; 0 = tokenizer.vocab_size."""
    max_seq_len: int = 0
    """Longest text the model is good for; 0 = data.seq_len."""
    norm: Literal["rmsnorm", "layernorm"] = "rmsnorm"
    """Layernorm also subtracts the mean and has a bias."""
    norm_eps: float = 1e-6
    """Added to the variance in norms."""
    norm_unit_offset: bool = False
    """Norm scales are stored minus one (Gemma)."""
    post_norms: bool = False
    """Further norms on what attention and feed-forward add to the stream (Gemma 2)."""
    qk_norm: bool = False
    """RMSNorm on each head's queries and keys, before rotation (Qwen3)."""
    qkv_bias: bool = False
    """Biases on queries, keys and values."""
    out_bias: bool = False
    """Bias on the attention output."""
    mlp_bias: bool = False
    """Biases in the feed-forward."""
    mlp: Literal["swiglu", "geglu", "gelu"] = "swiglu"
    """Feed-forward: gated by silu, gated by (tanh) gelu, or plain (tanh) gelu."""
    tied_embeddings: bool = True
    """Output head shares the embedding table."""
    embedding_multiplier: float = 1.0
    """Multiplies embeddings as they enter the stream."""
    residual_multiplier: float = 1.0
    """Multiplies what each block adds to the stream."""
    attention_multiplier: float = 0.0
    """Multiplies attention scores; 0 = 1 / sqrt(head_dim)."""
    logit_multiplier: float = 1.0
    """Multiplies logits."""
    logit_softcap: float = 0.0
    """Logits are squashed into plus or minus this by tanh; 0 = not."""
    attention_softcap: float = 0.0
    """The same for attention scores."""
    sliding_window: int = 0
    """Keys a token sees, itself included, in layers that slide; 0 = all of them."""
    window_from_layer: int = 0
    """First layer that slides (Qwen2)."""
    full_attention_every: int = 0
    """Every n-th layer does not slide (Gemma 2: 2); 0 = all slide."""
    rope: RopeConfig = RopeConfig()
    moe: MoEConfig = MoEConfig()
    mtp_heads: int = 0
    """Heads that predict the second next token, the third, and so on; training learns more, and serving can draft."""
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    """Storage of the parameters."""
    compute_dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """Matrix products; norms, softmax and loss are always in float32."""
    remat: Literal["none", "full", "matmuls", "offload"] = "full"
    """What backward keeps of a layer: everything, its input, attention and matmul outputs, or those in host memory."""
    unroll: int = 1
    """Layers written out one after the other in each turn of the loop over layers: faster on a CPU, and longer to
    compile."""
    attention: Literal["auto", "xla", "splash", "pallas", "cudnn"] = "auto"
    """Attention kernel; auto = the fastest that can do it on this platform, logged once."""


@dataclass(frozen=True)
class TokenizerConfig:
    """The tokenizer: one on disk, or one trained on the corpus."""

    path: str = ""
    """A tokenizer.model, tokenizer.json or folder with one; empty = train one on the corpus."""
    family: str = "codelm"
    """Prompt format in which documents are written (codelm/format_table.py); ours unless the tokenizer is imported."""
    vocab_size: int = 32_768
    """Pieces of the trained tokenizer, or of the one at path."""


@dataclass(frozen=True)
class MeshConfig:
    """Sizes of the named device axes; one of them may be -1: whatever the other axes leave."""

    data: int = -1
    """Replicas that see different rows."""
    fsdp: int = 1
    """Parameter shards that see different rows."""
    tensor: int = 1
    """Shards of heads, feed-forward and vocabulary."""
    context: int = 1
    """Shards of the sequence."""
    expert: int = 1
    """Shards of the experts."""


@dataclass(frozen=True)
class Config:
    """One experiment."""

    name: str = "unnamed"
    """Names the run folder; no part in the fingerprint."""
    seed: int = 0
    """Seeds initialisation and every row of data."""
    model: ModelConfig = ModelConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    data: DataConfig = field(default_factory=DataConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    midtrain: MidtrainConfig = field(default_factory=MidtrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)


def dial(model: ModelConfig, vocab_size: int) -> ModelConfig:
    """The model with every size left at 0 filled in from its depth.

    width      64 to 128 times the depth (published models grow wider per layer as they grow deeper), in steps of 128:
               depth 4 → 256, 14 → 896, 18 → 1280, 28 → 3072, 32 → 4096
    head_dim   64 below width 2048, else 128; heads = width / head_dim
    kv_heads   the largest power of two that divides heads, at most 8 and at most half of them
    mlp_width  8/3 of the width rounded up to a multiple of 128, so that SwiGLU costs what a 4x GELU block does
    """
    aspect = min(max(4 * model.depth, 64), 128)
    width = model.width or max(model.depth * aspect // 128, 1) * 128
    head_dim = model.head_dim or (64 if width < 2048 else 128)
    heads = model.heads or max(width // head_dim, 1)
    kv_heads = model.kv_heads or max((p for p in (8, 4, 2) if heads % p == 0 and 2 * p <= heads), default=1)
    mlp_width = model.mlp_width or _round_up(8 * width / 3, 128)
    moe = model.moe
    if moe.experts and not moe.expert_width:
        moe = dataclasses.replace(moe, expert_width=_round_up(mlp_width / max(moe.top_k, 1), 64))
    return dataclasses.replace(
        model,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        mlp_width=mlp_width,
        vocab_size=model.vocab_size or vocab_size,
        moe=moe,
    )


def dial_learning_rate(width: int) -> float:
    """Peak rate for a width: GPT-3 125M's 6e-4 at 768, close to Llama-7B's 3e-4 at 4096 (2.6e-4)."""
    return float(f"{6e-4 * math.sqrt(768 / width):.2g}")


def resolve(config: Config) -> Config:
    """The complete, validated config: dial applied, types and combinations checked."""
    config = checked(config, "", Config)
    _check_dials(config)
    model = dial(config.model, config.tokenizer.vocab_size)
    model = dataclasses.replace(model, max_seq_len=model.max_seq_len or config.data.seq_len)
    base = config.train.mup_base_width
    if base and model.logit_multiplier == 1.0:
        model = dataclasses.replace(model, logit_multiplier=base / model.width)
    rate = config.train.learning_rate or dial_learning_rate(base or model.width)
    resolved = dataclasses.replace(config, model=model, train=dataclasses.replace(config.train, learning_rate=rate))
    validate(resolved)
    return resolved


def _check_dials(config: Config) -> None:
    """Sizes that the dial divides by must be sane before it runs."""
    for path in ("model.depth", "tokenizer.vocab_size"):
        require(lookup(config, path) >= 1, f"{path} must be at least 1, not {lookup(config, path)}")
    for name in ("width", "heads", "kv_heads", "head_dim", "mlp_width", "vocab_size", "max_seq_len"):
        size = getattr(config.model, name)
        require(size >= 0, f"model.{name} must be at least 1 (or 0: set for you), not {size}")


def validate(config: Config) -> None:
    """Refuse impossible combinations, each with one line that names the fields and what to change."""
    model, data = config.model, config.data
    require(
        re.fullmatch(NAMES, config.name, re.ASCII) is not None,
        f"'{config.name}' is no name of a folder: letters, digits and . = + , - _ only",
    )
    for path in ("data.seq_len", "data.batch_size"):
        require(lookup(config, path) >= 1, f"{path} must be at least 1, not {lookup(config, path)}")
    require(config.seed >= 0, f"seed must be at least 0, not {config.seed}")
    for path in ("model.rope.theta", "model.norm_eps"):
        value = lookup(config, path)
        require(0 < value < math.inf, f"{path} must be a positive number, not {value}")
    require(model.mtp_heads >= 0, f"model.mtp_heads must be at least 0, not {model.mtp_heads}")
    require(model.unroll >= 1, f"model.unroll must be at least 1, not {model.unroll}")
    validate_training(config)
    require(
        model.heads % model.kv_heads == 0,
        f"model.heads={model.heads} is not divisible by model.kv_heads={model.kv_heads}; "
        f"use one of {divisors(model.heads)}",
    )
    require(model.head_dim % 2 == 0, f"model.head_dim={model.head_dim} must be even: rotary embedding turns pairs")
    require(
        model.vocab_size >= config.tokenizer.vocab_size,
        f"model.vocab_size={model.vocab_size} is smaller than tokenizer.vocab_size={config.tokenizer.vocab_size}",
    )
    validate_corpus(config.corpus)
    validate_data(data)
    formats.family(config.tokenizer.family)
    _validate_rope(model.rope)
    _validate_length(model, data.seq_len)
    _validate_windows(model)
    _validate_moe(model.moe)
    _validate_mesh(config.mesh, model, data)


def _validate_rope(rope: RopeConfig) -> None:
    require(rope.factor >= 1, f"model.rope.factor must be at least 1, not {rope.factor}")
    require(
        rope.scaling in ("none", "linear") or rope.original_seq_len >= 1,
        f"model.rope.scaling={rope.scaling} needs model.rope.original_seq_len, the length the model was trained at",
    )
    require(
        rope.scaling != "llama3" or rope.high_freq_factor > rope.low_freq_factor,
        f"model.rope.high_freq_factor={rope.high_freq_factor} must be above "
        f"model.rope.low_freq_factor={rope.low_freq_factor}",
    )


def _validate_length(model: ModelConfig, seq_len: int) -> None:
    """Rows must not be longer than positions can tell apart."""
    rope, longest = model.rope, model.max_seq_len
    require(
        seq_len <= longest,
        f"data.seq_len={seq_len} is longer than model.max_seq_len={longest}; raise that (0 = the length of rows)",
    )
    reach = round(rope.factor * rope.original_seq_len)
    require(
        rope.scaling in ("none", "dynamic") or not rope.original_seq_len or seq_len <= reach,
        f"data.seq_len={seq_len} is longer than model.rope.scaling={rope.scaling} allows: model.rope.factor="
        f"{rope.factor:g} times model.rope.original_seq_len={rope.original_seq_len} is {reach}; raise the factor",
    )


def _validate_windows(model: ModelConfig) -> None:
    for name in ("sliding_window", "window_from_layer", "full_attention_every"):
        size = getattr(model, name)
        require(size >= 0, f"model.{name} must be at least 0, not {size}")
    for name in ("window_from_layer", "full_attention_every"):
        require(
            model.sliding_window > 0 or getattr(model, name) == 0,
            f"model.{name}={getattr(model, name)} needs model.sliding_window > 0",
        )


def _validate_moe(moe: MoEConfig) -> None:
    if moe.experts == 0:
        require(moe.shared_experts == 0, "model.moe.shared_experts needs model.moe.experts > 0")
        return
    require(moe.experts > 0, f"model.moe.experts must be at least 0, not {moe.experts}")
    require(
        1 <= moe.top_k <= moe.experts,
        f"model.moe.top_k={moe.top_k} must be between 1 and model.moe.experts={moe.experts}",
    )
    require(moe.shared_experts >= 0, f"model.moe.shared_experts must be at least 0, not {moe.shared_experts}")
    require(moe.expert_width >= 1, f"model.moe.expert_width must be at least 1, not {moe.expert_width}")


def _validate_mesh(mesh: MeshConfig, model: ModelConfig, data: DataConfig) -> None:
    sizes = dataclasses.asdict(mesh)
    for axis, size in sizes.items():
        require(size >= 1 or size == -1, f"mesh.{axis} must be at least 1 (or -1: the rest), not {size}")
    rest = [axis for axis, size in sizes.items() if size == -1]
    require(len(rest) <= 1, f"only one mesh axis may be -1 (the rest), not {' and '.join(rest)}")
    split = [
        ("mesh.context", mesh.context, "data.seq_len", data.seq_len),
        ("mesh.tensor", mesh.tensor, "model.kv_heads", model.kv_heads),
        ("mesh.tensor", mesh.tensor, "model.mlp_width", model.mlp_width),
        ("mesh.fsdp", mesh.fsdp, "model.width", model.width),
        ("mesh.fsdp", mesh.fsdp, "data.batch_size", data.batch_size),
        ("mesh.data", mesh.data, "data.batch_size", data.batch_size),
        ("mesh.tensor", mesh.tensor, "model.vocab_size", model.vocab_size),
    ]
    if model.mtp_heads:
        split.append(("mesh.tensor", mesh.tensor, "model.width", model.width))
    if model.moe.experts:
        split.append(("mesh.expert", mesh.expert, "model.moe.experts", model.moe.experts))
    else:
        require(mesh.expert in (1, -1), f"mesh.expert={mesh.expert} needs a mixture of experts (model.moe.experts)")
    for axis, size, path, value in split:
        require(size == -1 or value % size == 0, f"{axis}={size} does not divide {path}={value}")


def mesh_shape(config: Config, devices: int) -> dict[str, int]:
    """Axis sizes for this many devices, the -1 axis filled in."""
    sizes = dataclasses.asdict(config.mesh)
    fixed = math.prod(size for size in sizes.values() if size != -1)
    shown = " x ".join(f"{axis}={size}" for axis, size in sizes.items() if size != 1) or "1"
    if -1 in sizes.values():
        require(
            devices % fixed == 0 and devices >= fixed,
            f"mesh {shown} needs a multiple of {fixed} devices, but there are {devices}",
        )
        sizes = {axis: devices // fixed if size == -1 else size for axis, size in sizes.items()}
    else:
        require(
            fixed == devices,
            f"mesh {shown} needs {fixed} devices, but there are {devices}; set one axis to -1 to use them all",
        )
    _validate_mesh(MeshConfig(**sizes), config.model, config.data)
    row_shards = sizes["data"] * sizes["fsdp"] * sizes["expert"]
    rows, parts = config.data.batch_size, config.train.accumulate
    part = f" in each of train.accumulate={parts} parts" if parts > 1 else ""
    require(
        rows // parts % row_shards == 0,
        f"data.batch_size={rows}{part} does not divide over mesh data x fsdp x expert = {row_shards}",
    )
    return sizes


def fingerprint(config: Config) -> str:
    """16 hex digits over every field that changes results, of the resolved config."""
    content: Any = dataclasses.asdict(config)
    for path in WHERE_IT_RUNS:
        *parents, leaf = path.split(".")
        node = content
        for parent in parents:
            node = node[parent]
        del node[leaf]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def field_types(cls: type) -> dict[str, Any]:
    """Annotated type of each field of a config dataclass, by name."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls)}


def field_paths(cls: type, prefix: str = "") -> list[str]:
    """Every dotted path of a config dataclass, in order."""
    paths: list[str] = []
    for name, kind in field_types(cls).items():
        nested = dataclasses.is_dataclass(kind)
        paths += field_paths(kind, f"{prefix}{name}.") if nested else [prefix + name]
    return paths


def checked(value: Any, path: str, kind: Any) -> Any:
    """The value if it is of its annotated type, which Python does not check; integers made float where one is meant."""
    if dataclasses.is_dataclass(kind):
        require(type(value) is kind, f"{path} takes {describe_type(kind)}, not {value!r}")
        fields = field_types(kind).items()
        return kind(**{name: checked(getattr(value, name), f"{path}.{name}".lstrip("."), of) for name, of in fields})
    require(_is_instance(value, kind), f"{path} takes {describe_type(kind)}, not {value!r}")
    if typing.get_origin(kind) is tuple:
        of = typing.get_args(kind)[0]
        return tuple(checked(item, f"{path}.{n}", of) for n, item in enumerate(value))
    return float(value) if kind is float else value


def _is_instance(value: Any, kind: Any) -> bool:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        of = arguments[0]
        return isinstance(value, tuple) and (
            dataclasses.is_dataclass(of) or all(_is_instance(item, of) for item in value)
        )
    if kind is float:  # an int where a float is meant is fine; a bool never is
        return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def describe_type(kind: Any) -> str:
    """A type as a user would say it."""
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(str(choice) for choice in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        return f"a list, each {describe_type(typing.get_args(kind)[0])}"
    names = {int: "an integer", float: "a number", bool: "True or False", str: "text"}
    return names.get(kind, f"a {kind.__name__}" if isinstance(kind, type | types.GenericAlias) else str(kind))


def divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def _round_up(value: float, multiple: int) -> int:
    return math.ceil(value / multiple) * multiple
