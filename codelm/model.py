"""The network: a decoder-only transformer in Flax NNX, its layers stacked and scanned.

One forward serves training and cached decoding. `codelm.parameters` lists what it is made of and how it starts;
`codelm.sharding` says how arrays are split when a mesh is set; statistics of norms, softmax and loss are in float32.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, Int

from codelm import cache as kv
from codelm import quantised
from codelm.attention import NAME as ATTENTION
from codelm.attention import attend
from codelm.cache import Apart, Cache, Heads, Rows, Rule, Slots
from codelm.config import ModelConfig
from codelm.matmuls import product
from codelm.moe import MoEStats, moe
from codelm.parameters import Parameter, all_parameters, block_parameters
from codelm.quantised import Quantised, Stored
from codelm.rope import rotate, rotations
from codelm.sharding import follow, gathered, has_mesh, like_stream, place, platform, spec, without
from codelm.windows import layer_runs, layer_windows

PAD = kv.EMPTY  # the segment of padding: no token is in it, so no token attends to padding
FEW = 16  # streams: so many are read faster with the table on the left, by a CPU, and one or many on the right
# What a layer keeps for backward under the remat policies between none and full.
SAVED = ("query", "key", "value", ATTENTION, "gate", "up")


class Block(nnx.Module):
    """One layer: attention, then feed-forward or experts, each added to the residual stream."""

    router_bias: nnx.Param  # of routers balanced by bias; the trainer moves it

    def __init__(self, config: ModelConfig, values: Mapping[str, Stored], matmuls: str) -> None:
        self.config, self.matmuls = config, matmuls
        for name in block_parameters(config):
            setattr(self, name, nnx.Param(values[name]))

    def __call__(
        self, x: Float[Array, "B S D"], rows: Rows, window: int, memory: Any, slots: Slots | None
    ) -> tuple[Float[Array, "B S D"], Any, MoEStats | None]:
        attended, memory = self.attention(self.norm(x, "attention_norm"), rows, window, memory, slots)
        x = x + self.added(attended, "attention_post_norm")
        changed, stats = self.feed_forward(self.norm(x, "mlp_norm"), rows)
        return x + self.added(changed, "mlp_post_norm"), memory, stats

    def attention(
        self, x: Float[Array, "B S D"], rows: Rows, window: int, memory: Any, slots: Slots | None
    ) -> tuple[Float[Array, "B S D"], Any]:
        config = self.config
        heads = self.heads(x, rows)
        scale = config.attention_multiplier or config.head_dim**-0.5
        rule = Rule(scale, window, config.attention_softcap, config.attention)
        if slots is not None:
            mixed, memory = slots.attend(memory, heads, rows, rule)
        else:
            mixed = attend(
                *heads,
                query_positions=rows.positions,
                key_positions=rows.positions,
                query_segments=rows.segments,
                key_segments=rows.segments,
                **rule._asdict(),
            )
        out = self.product("bsnh,nhd->bsd", follow(mixed, x), "out", like_stream(x))
        return self.biased(out, "out_bias"), memory

    def heads(self, x: Float[Array, "B S D"], rows: Rows) -> Heads:
        """Rotated queries and keys, and values."""
        config = self.config
        query = self.biased(self.product("bsd,dnh->bsnh", x, "query"), "query_bias")
        key = self.biased(self.product("bsd,dkh->bskh", x, "key"), "key_bias")
        value = self.biased(self.product("bsd,dkh->bskh", x, "value"), "value_bias")
        if config.qk_norm:
            query = rms_norm(query, self.scale("query_norm"), config.norm_eps)
            key = rms_norm(key, self.scale("key_norm"), config.norm_eps)
        cos, sin = rotations(config.rope, config.head_dim, rows.positions)
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        return Heads(checkpoint_name(query, "query"), checkpoint_name(key, "key"), checkpoint_name(value, "value"))

    def feed_forward(self, x: Float[Array, "B S D"], rows: Rows) -> tuple[Float[Array, "B S D"], MoEStats | None]:
        if not self.config.moe.experts:
            return self.dense(x, ""), None
        settings = self.config.moe
        out, stats = moe(
            x,
            self.stored("router"),
            *(self.experts(name, x.dtype) for name in ("experts_gate", "experts_up", "experts_down")),
            top_k=settings.top_k,
            renormalise=settings.renormalise,
            capacity_factor=settings.capacity_factor,
            bias=self.stored("router_bias") if settings.balance == "bias" else None,
            activation="silu" if self.config.mlp == "swiglu" else "gelu_tanh",
            mask=(rows.segments != PAD).astype(jnp.float32),
        )
        out = follow(out, x)
        return (out + self.dense(x, "shared_") if settings.shared_experts else out), stats

    def dense(self, x: Float[Array, "B S D"], prefix: str) -> Float[Array, "B S D"]:
        """The feed-forward, or the shared experts, which are one wide feed-forward."""

        def product(name: str) -> Float[Array, "B S F"]:
            out = self.product("bsd,df->bsf", x, prefix + name)
            return checkpoint_name(self.biased(out, f"{prefix}{name}_bias"), name)

        if self.config.mlp == "gelu":
            hidden = jax.nn.gelu(product("up"))  # jax's gelu is the tanh one
        else:
            hidden = (jax.nn.silu if self.config.mlp == "swiglu" else jax.nn.gelu)(product("gate")) * product("up")
        down = self.product("bsf,fd->bsd", hidden, f"{prefix}down", like_stream(x))
        return self.biased(down, f"{prefix}down_bias")

    def product(
        self, subscripts: str, x: Float[Array, "B S ..."], name: str, out_sharding: PartitionSpec | None = None
    ) -> Float[Array, "B S ..."]:
        """x times a parameter; out_sharding where what is summed over is split, so that parts add up across devices."""
        dimensions = block_parameters(self.config)[name].dimensions
        return product(subscripts, x, getattr(self, name)[...], dimensions, self.matmuls, out_sharding)

    def experts(self, name: str, dtype: jnp.dtype) -> Float[Array, "E N M"]:
        weight = getattr(self, name)[...]
        return weight.restored(dtype) if isinstance(weight, Quantised) else weight

    def stored(self, name: str) -> Float[Array, "..."]:
        return getattr(self, name)[...]

    def biased(self, x: Float[Array, "..."], name: str) -> Float[Array, "..."]:
        return x + self.stored(name).astype(x.dtype) if hasattr(self, name) else x

    def scale(self, name: str) -> Float[Array, " D"]:
        return _scale(self.stored(name), self.config)

    def norm(self, x: Float[Array, "B S D"], name: str) -> Float[Array, "B S D"]:
        bias = self.stored(f"{name}_bias") if self.config.norm == "layernorm" else None
        return normalise(x, self.scale(name), bias, self.config)

    def added(self, x: Float[Array, "B S D"], post_norm: str) -> Float[Array, "B S D"]:
        """What goes into the stream."""
        x = self.norm(x, post_norm) if self.config.post_norms else x
        return x if self.config.residual_multiplier == 1.0 else x * self.config.residual_multiplier


class Transformer(nnx.Module):
    """Token ids to logits."""

    embedding: nnx.Param
    head: nnx.Param  # where it is not the embedding
    final_norm: nnx.Param
    final_norm_bias: nnx.Param  # of a layernorm
    mtp_up: nnx.Param  # of heads that look further ahead
    mtp_down: nnx.Param

    def __init__(self, config: ModelConfig, values: Mapping[str, Stored], matmuls: str = "") -> None:
        """A model of these arrays (see `codelm.parameters.all_parameters`); `create` makes a new one.

        With matmuls (see TrainConfig) the products of its layers are in fewer bits.
        """
        self.config = config
        blocks = {name.removeprefix("blocks."): value for name, value in values.items() if name.startswith("blocks.")}
        for name in values.keys() - {f"blocks.{block}" for block in blocks}:
            setattr(self, name, nnx.Param(values[name]))
        self.blocks = Block(config, blocks, matmuls)

    def apart(self) -> "Transformer":
        """The same model for decoding: every layer's arrays apart, in the dtype or the bits that products take.

        No expert is ever full: what is dropped would depend on how much of a text is read at once.
        """
        config = replace(self.config, moe=replace(self.config.moe, capacity_factor=0.0))
        parameters = all_parameters(config)
        values = {name: _for_decoding(value, parameters[name], name, config) for name, value in self.arrays().items()}
        blocks = {name.removeprefix("blocks."): value for name, value in values.items() if name.startswith("blocks.")}
        model = Transformer(config, values)
        layers = ({name: value[i] for name, value in blocks.items()} for i in range(config.depth))
        model.blocks = cast(Block, nnx.List([Block(config, layer, "") for layer in layers]))
        return model

    def arrays(self) -> dict[str, Stored]:
        """Its arrays by name, as they make a model."""
        return {
            name: getattr(self.blocks if name.startswith("blocks.") else self, name.removeprefix("blocks."))[...]
            for name in all_parameters(self.config)
        }

    def __call__(
        self,
        tokens: Int[Array, "B S"],
        positions: Int[Array, "B S"] | None = None,
        segments: Int[Array, "B S"] | None = None,
    ) -> Float[Array, "B S V"]:
        """Logits in float32. Packed rows say where each document begins by positions and segments."""
        return self.logits(self.hidden(tokens, positions, segments)[0])

    def hidden(
        self,
        tokens: Int[Array, "B S"],
        positions: Int[Array, "B S"] | None = None,
        segments: Int[Array, "B S"] | None = None,
        cache: Cache | Apart | None = None,
    ) -> tuple[Float[Array, "B S D"], Any, MoEStats | None]:
        """The normed last stream, the cache with these tokens in it, and each layer's routing statistics, stacked.

        With a cache the tokens continue what is in it; positions, where not given, count on from a `Cache`'s length.
        """
        if positions is None:
            start = cache.slots.length if isinstance(cache, Cache) else 0
            positions = jnp.broadcast_to(start + jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
        segments = jnp.zeros_like(tokens, jnp.int32) if segments is None else segments
        along = "sequence" if cache is None else "slots"  # a cache is whole along its slots, so what goes in is too
        rows = Rows(place(positions, "batch", along), place(segments, "batch", along))
        cache = None if cache is None else cache.noting(rows)
        x, memory, stats = self.layers(self.embed(place(tokens, "batch", along)), rows, cache)
        cache = None if cache is None else cache.after(memory, tokens.shape[1])
        bias = self.final_norm_bias[...] if self.config.norm == "layernorm" else None
        return normalise(x, _scale(self.final_norm[...], self.config), bias, self.config), cache, stats

    def embed(self, tokens: Int[Array, "B S"]) -> Float[Array, "B S D"]:
        """Rows of the table.

        Each device looks up its share of the width for the tokens of its whole fsdp group, and the shares change
        hands: far fewer bytes than the table, which nobody ever has whole, nor its gradient.
        """
        multiplier, dtype = self.config.embedding_multiplier, self.config.compute_dtype
        if has_mesh():
            stream = like_stream(tokens)
            group = jax.reshard(tokens, without(jax.typeof(tokens).sharding.spec, "fsdp"))
            width = jax.typeof(self.embedding[...]).sharding.spec[1]
            found = self.embedding[...].at[group].get(out_sharding=P(*jax.typeof(group).sharding.spec, width))
            x = jax.reshard(found.astype(dtype), stream)
        else:
            x = self.embedding[...][tokens].astype(dtype)
        return x if multiplier == 1.0 else x * jnp.asarray(multiplier, x.dtype)

    def layers(
        self, x: Float[Array, "B S D"], rows: Rows, cache: Cache | Apart | None
    ) -> tuple[Float[Array, "B S D"], Any, MoEStats | None]:
        """Scan over the layers, in runs that repeat one pattern of windows; or each after the other, if apart."""
        memory, slots = (None, None) if cache is None else (cache.memory, cache.slots)
        if isinstance(self.blocks, nnx.List):
            return *_each(self.blocks, x, rows, layer_windows(self.config), memory, slots), None
        outputs = []
        for first, last, pattern in layer_runs(layer_windows(self.config)):
            run = _grouped((self.blocks, memory), first, last, len(pattern))
            body = partial(_run, self.config.remat, pattern, rows, slots)
            x, out = jax.lax.scan(body, x, run, unroll=self.config.unroll)
            outputs.append(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), out))
        memory, stats = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *outputs)
        return x, memory, stats

    @property
    def output_table(self) -> Float[Array, "V D"]:
        table = (self.embedding if self.config.tied_embeddings else self.head)[...]
        return table.restored(self.config.compute_dtype) if isinstance(table, Quantised) else table

    def ahead(self, x: Float[Array, "B S D"], head: int) -> Float[Array, "B S D"]:
        """What gives, through `logits`, the token after `head + 1` more, from the normed last stream."""
        return look_ahead(x, self.mtp_up[...][head], self.mtp_down[...][head])

    def logits(self, x: Float[Array, "B S D"]) -> Float[Array, "B S V"]:
        config = self.config
        if not config.tied_embeddings and isinstance(table := self.head[...], Quantised) and table.is_multiplied:
            logits = quantised.product("bsd,vd->bsv", x, table)
        else:
            whole = gathered(self.output_table.astype(x.dtype), "vocab", "width")
            if 1 < x.shape[0] * x.shape[1] <= FEW:
                logits = jax.lax.dot_general(whole, x, (((1,), (2,)), ((), ())), preferred_element_type=jnp.float32)
                logits = logits.transpose(1, 2, 0)
            else:
                logits = jnp.einsum("bsd,vd->bsv", x, whole, preferred_element_type=jnp.float32)
        logits *= config.logit_multiplier
        return jnp.tanh(logits / config.logit_softcap) * config.logit_softcap if config.logit_softcap else logits


def _for_decoding(value: Stored, parameter: Parameter, name: str, config: ModelConfig) -> Stored:
    if isinstance(value, Quantised):
        # What a CPU does not multiply as it is, it would make whole again at every token.
        as_it_is = platform() != "cpu" or (value.is_multiplied and "experts" not in parameter.dimensions)
        return value if as_it_is else value.restored(config.compute_dtype)
    return value.astype(config.compute_dtype) if _only_multiplies(parameter, name) else value


def _only_multiplies(parameter: Parameter, name: str) -> bool:
    """Whether the forward pass takes it in the dtype that computes: a router chooses in float32, norms scale in it."""
    return parameter.start in ("matrix", "residual", "embedding") and not name.endswith("router")


def create(config: ModelConfig, seed: int) -> Transformer:
    """A new model, every array born in its place on the mesh that is set."""
    values = {}
    for i, (name, parameter) in enumerate(all_parameters(config).items()):
        std, shape, dtype = parameter.std(config.depth), parameter.shape, jnp.dtype(config.param_dtype)
        split: Any = {"out_sharding": spec(*parameter.dimensions, shape=shape)} if has_mesh() else {}
        if std:
            key = jax.random.fold_in(jax.random.key(seed), i)
            values[name] = (std * jax.random.normal(key, shape, **split)).astype(dtype)
        else:
            values[name] = place(jnp.full(shape, float(parameter.start == "one"), dtype), *parameter.dimensions)
    return Transformer(config, values)


def _each(
    blocks: Sequence[Block],
    x: Float[Array, "B S D"],
    rows: Rows,
    windows: Sequence[int],
    memories: Sequence[Any] | None,
    slots: Slots | None,
) -> tuple[Float[Array, "B S D"], tuple[Any, ...]]:
    """Layers with arrays of their own, written out: a loop would copy each one's weights and cache before use."""
    after = []
    for block, window, memory in zip(blocks, windows, memories or [None] * len(windows), strict=True):
        x, memory, _ = block(x, rows, window, memory, slots)
        after.append(memory)
    return x, tuple(after)


def _run(
    remat: str, pattern: tuple[int, ...], rows: Rows, slots: Slots | None, x: Float[Array, "B S D"], layers: Any
) -> tuple[Float[Array, "B S D"], Any]:
    """The layers of one pattern: the body of the scan."""
    outputs = []
    for i, window in enumerate(pattern):

        def layer(x: Array, own: Any, window: int = window) -> tuple[Array, Any, Any]:
            block, memory = own
            return block(x, rows, window, memory, slots)

        x, *out = _rematerialised(layer, remat)(x, jax.tree.map(lambda leaf, i=i: leaf[i], layers))
        outputs.append(tuple(out))
    return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *outputs)


def _rematerialised(layer: Callable, remat: str) -> Callable:
    """The layer, told what to keep for backward."""
    if remat == "none":
        return layer
    policies = jax.checkpoint_policies
    policy = {
        "full": policies.nothing_saveable,
        "matmuls": policies.save_only_these_names(*SAVED),
        "offload": policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[],
            names_which_can_be_offloaded=list(SAVED),
            offload_src="device",
            offload_dst="pinned_host",
        ),
    }[remat]
    return jax.checkpoint(layer, policy=policy, prevent_cse=False)  # inside a scan, common parts stay apart anyway


def _grouped(tree: Any, first: int, last: int, size: int) -> Any:
    """Layers first to last of stacked arrays, in groups."""
    return jax.tree.map(lambda leaf: leaf[first:last].reshape(-1, size, *leaf.shape[1:]), tree)


def look_ahead(x: Float[Array, "B S D"], up: Float[Array, "D F"], down: Float[Array, "F D"]) -> Float[Array, "B S D"]:
    """A head's own part: a small feed-forward beside the stream."""
    hidden = jax.nn.silu(product("bsd,df->bsf", x, up, ("width", "mlp")))
    return x + product("bsf,fd->bsd", hidden, down, ("mlp", "width"), out_sharding=like_stream(x))


def _scale(stored: Float[Array, " D"], config: ModelConfig) -> Float[Array, " D"]:
    """A norm's scale in float32; Gemma stores it minus one."""
    return stored.astype(jnp.float32) + (1.0 if config.norm_unit_offset else 0.0)


def normalise(
    x: Float[Array, "*B D"], scale: Float[Array, " D"], bias: Float[Array, " D"] | None, config: ModelConfig
) -> Float[Array, "*B D"]:
    """The norm of the config: statistics in float32, result in the dtype of x."""
    if config.norm == "rmsnorm":
        return rms_norm(x, scale, config.norm_eps)
    wide = x.astype(jnp.float32)
    wide = wide - wide.mean(axis=-1, keepdims=True)
    wide = wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + config.norm_eps) * scale
    return (wide if bias is None else wide + bias.astype(jnp.float32)).astype(x.dtype)


def rms_norm(x: Float[Array, "*B D"], scale: Float[Array, " D"], eps: float) -> Float[Array, "*B D"]:
    wide = x.astype(jnp.float32)
    return (wide * jax.lax.rsqrt(jnp.mean(wide**2, axis=-1, keepdims=True) + eps) * scale).astype(x.dtype)
