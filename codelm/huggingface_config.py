"""config.json of Hugging Face models, in both directions; what is particular to a family is in `huggingface_families`.

Read as transformers 5 writes it (rope_parameters, dtype) and as models were published before (rope_theta, rope_scaling,
torch_dtype); a missing field means what it means to transformers. Written as transformers 5 does. Whether a family can
hold a model is decided by writing the model, reading that back and comparing, so the two directions cannot disagree.

>>> model, family = read_config(Path("Qwen2.5-Coder-7B"))  # doctest: +SKIP
>>> family, family_of(model)  # doctest: +SKIP
('qwen2', 'qwen2')
"""

import copy
import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codelm.config import (
    Config,
    ModelConfig,
    MoEConfig,
    RopeConfig,
    TokenizerConfig,
    checked,
    field_paths,
    field_types,
    lookup,
    resolve,
)
from codelm.data_config import DataConfig
from codelm.errors import UserError
from codelm.huggingface_families import (
    DEFAULTS,
    FAMILIES,
    HARMLESS,
    NULLABLE,
    ROPE_FIELDS,
    ROPE_REQUIRED,
    STORED_AS,
    Family,
)
from codelm.windows import layer_windows

Json = dict[str, Any]

TYPES = {**field_types(ModelConfig), **{f"moe.{name}": kind for name, kind in field_types(MoEConfig).items()}}
ORIGINAL = "original_max_position_embeddings"


# --- reading ----------------------------------------------------------------------------------------------------------


def read_config(folder: Path) -> tuple[ModelConfig, str]:
    """The model in a Hugging Face folder, and its family (model_type)."""
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a JSON object")
    return model_config(content, str(path)), content["model_type"]


def model_config(content: Json, where: str) -> ModelConfig:
    """The model that the content of a config.json describes, every size filled in; `where` names it in errors."""
    family = _family(content.get("model_type"), where)
    if "num_experts" in content:  # the same field, before transformers 5
        content = {"num_local_experts": content["num_experts"], **content}
    source = _Source(content, family, where)
    _refuse_unsupported(source)
    values: Json = dict(family.fixed)
    for name, targets in family.fields.items():
        value = source.get(name, TYPES[targets.split()[0]])
        values |= {} if value is None else dict.fromkeys(targets.split(), value)
    for name, (target, power) in family.powers.items():
        values[target] = source.positive(name, float) ** power
    values.setdefault("kv_heads", values["heads"])
    values["head_dim"] = source.get("head_dim", int) or values["width"] // values["heads"]
    if family.scaled_embedding:
        values["embedding_multiplier"] = math.sqrt(values["width"])
    moe = {path.removeprefix("moe."): values.pop(path) for path in list(values) if path.startswith("moe.")}
    values["max_seq_len"] = source.get("max_position_embeddings", int)
    values |= _windows(source, values["depth"]) | _dtypes(source)
    model = ModelConfig(**values, rope=_rope(source), moe=_moe(source, moe), remat="none")
    try:
        return resolve(Config(model=model, tokenizer=TokenizerConfig(vocab_size=1), data=DataConfig(seq_len=1))).model
    except UserError as error:
        raise UserError(f"{where}: {error}") from error


@dataclass(frozen=True)
class _Source:
    """The fields of one config.json: the family's value for those that are missing, errors that name them."""

    content: Json
    family: Family
    where: str

    def get(self, name: str, kind: Any) -> Any:
        """The value of a field, of that type; sizes are at least 1."""
        defaults = {**DEFAULTS, **self.family.defaults}
        if name not in self.content and name not in defaults:
            raise UserError(f"{self.where} lacks {name}")
        value = self.content[name] if name in self.content else defaults[name]
        if value is None and name in NULLABLE:
            return None
        return self.positive(name, kind, value) if kind is int else checked(value, f"{self.where}: {name}", kind)

    def positive(self, name: str, kind: Any, value: Any = None) -> Any:
        value = checked(self.get(name, float) if value is None else value, f"{self.where}: {name}", kind)
        if value <= 0:
            raise UserError(f"{self.where}: {name} must be above 0, not {value}")
        return value


def _family(name: Any, where: str) -> Family:
    if not isinstance(name, str) or name not in FAMILIES:
        raise UserError(f"{where}: model_type {name!r} is not supported; supported are {', '.join(FAMILIES)}")
    return FAMILIES[name]


def _refuse_unsupported(source: _Source) -> None:
    """Refuse what would silently be another network."""
    architectures = source.content.get("architectures")
    if architectures and architectures != [source.family.architecture]:
        raise UserError(f"{source.where}: architectures {architectures} is not supported; it must be "
                        f"[{source.family.architecture!r}]")  # fmt: skip
    for name, accepted in {**HARMLESS, **source.family.accepted}.items():
        value = source.content.get(name)
        if value is None or value in accepted:
            continue
        shown = " or ".join(json.dumps(choice) for choice in accepted if choice is not None)
        raise UserError(f"{source.where}: {name}={json.dumps(value)} is not supported; "
                        + (f"it must be {shown}" if shown else "remove it, or take unquantised weights"))  # fmt: skip


def _dtypes(source: _Source) -> Json:
    """float16 is computed in float32, whose range it needs not fear; as bfloat16 it would lose bits."""
    name = source.content.get("dtype") or source.content.get("torch_dtype") or "float32"
    if not isinstance(name, str) or name not in STORED_AS:
        raise UserError(f"{source.where}: dtype {name!r} is not supported; supported are {', '.join(STORED_AS)}")
    return {"param_dtype": STORED_AS[name], "compute_dtype": STORED_AS[name]}


def _rope(source: _Source) -> RopeConfig:
    """From rope_parameters, or from rope_theta and rope_scaling."""
    name = "rope_scaling" if source.content.get("rope_scaling") else "rope_parameters"
    scaling, where = source.content.get(name) or {}, f"{source.where}: {name}"
    if not isinstance(scaling, dict) or any(isinstance(value, dict) for value in scaling.values()):
        raise UserError(f"{where} must be one object of numbers for all layers")
    kind = str(scaling.get("rope_type") or scaling.get("type") or "default")
    if kind not in ROPE_FIELDS:
        raise UserError(f"{where}.rope_type {kind!r} is not supported; supported are {', '.join(ROPE_FIELDS)}")
    if scaling.get("partial_rotary_factor", 1.0) not in HARMLESS["partial_rotary_factor"]:
        raise UserError(f"{where}.partial_rotary_factor={scaling['partial_rotary_factor']} is not supported")
    given = {"rope_theta": source.get("rope_theta", float), **scaling}
    if kind in ("llama3", "yarn"):
        positions = source.get("max_position_embeddings", int)
        given[ORIGINAL] = source.content.get(ORIGINAL) or scaling.get(ORIGINAL) or positions
        if kind == "yarn" and given.get("factor") is None:
            given["factor"] = positions / given[ORIGINAL]
    values: Json = {"scaling": "none" if kind == "default" else kind}
    values["theta"] = checked(given["rope_theta"], f"{where}.rope_theta", float)
    for field, target in ROPE_FIELDS[kind].items():
        if given.get(field) is not None:
            values[target] = checked(given[field], f"{where}.{field}", field_types(RopeConfig)[target])
        elif field in ROPE_REQUIRED:
            raise UserError(f"{where} lacks {field}, which {kind} needs")
    if kind == "dynamic":
        values["original_seq_len"] = source.get("max_position_embeddings", int)
    return RopeConfig(**values)


def _moe(source: _Source, values: Json) -> MoEConfig:
    """Its load-balance loss sums over a token's experts where ours takes their mean."""
    if not values:
        return MoEConfig()
    weight = source.get("router_aux_loss_coef", float) * values["top_k"]
    return MoEConfig(**values, balance="loss" if weight else "none", balance_weight=weight)


def _windows(source: _Source, depth: int) -> Json:
    """sliding_window, and which layers it is for."""
    kind, window = source.family.windows, source.get("sliding_window", int)
    if kind == "none" or (kind in ("switched", "late") and not source.get("use_sliding_window", bool)):
        window = None
    slides = _slides(source, depth, sliding=window is not None)
    if not any(slides):
        return {}
    if window is None:
        raise UserError(f"{source.where}: layer_types has layers that slide, but there is no sliding_window for them")
    first, every = pattern(slides, f"{source.where}: layer_types")
    return {"sliding_window": window, "window_from_layer": first, "full_attention_every": every}


def _slides(source: _Source, depth: int, sliding: bool) -> list[bool]:
    types = source.content.get("layer_types")
    if types is not None:
        known = ("full_attention", "sliding_attention")
        if not isinstance(types, list) or len(types) != depth or any(kind not in known for kind in types):
            raise UserError(f"{source.where}: layer_types must name {' or '.join(known)} for each of {depth} layers")
        return [kind == "sliding_attention" for kind in types]
    first = checked(source.get("max_window_layers", float), "", float) if source.family.windows == "late" else 0
    step = 2 if source.family.windows == "alternate" else 1
    return [sliding and i >= first and i % step == 0 for i in range(depth)]


def pattern(slides: list[bool], where: str) -> tuple[int, int]:
    """The first layer that slides, and every how many from there does not (0: all do)."""
    first = slides.index(True)
    for every in (0, *range(2, len(slides) + 1)):
        if slides == [i >= first and not (every and (i + 1) % every == 0) for i in range(len(slides))]:
            return first, every
    raise UserError(f"{where}: this pattern of full and sliding layers is not supported; it must be regular")


# --- writing ----------------------------------------------------------------------------------------------------------


def family_of(config: ModelConfig) -> str:
    """The first family that can hold a model."""
    lost = {name: unrepresentable(config, name) for name in FAMILIES if _has_experts(name) == bool(config.moe.experts)}
    nearest = min(lost, key=lambda name: len(lost[name]))
    if lost[nearest]:
        raise UserError(f"no Hugging Face family can hold this model: {nearest} comes nearest, but "
                        f"it has no {_shown(config, lost[nearest])}")  # fmt: skip
    return nearest


def to_huggingface(config: ModelConfig, family: str) -> Json:
    """The config.json of a model, without token ids."""
    _family(family, "to_huggingface")
    if lost := unrepresentable(config, family):
        raise UserError(f"a {family} model cannot have {_shown(config, lost)}")
    return _written(config, family)


def unrepresentable(config: ModelConfig, family: str) -> list[str]:
    """The fields of a model that a family cannot hold."""
    if _has_experts(family) != bool(config.moe.experts):
        return ["moe.experts"]
    again = _comparable(model_config(_written(config, family), family))
    config = _comparable(config)

    def same(mine: Any, other: Any) -> bool:
        return math.isclose(mine, other, rel_tol=1e-9) if isinstance(mine, float) else mine == other

    lost = [path for path in field_paths(ModelConfig) if not same(lookup(config, path), lookup(again, path))]
    uneven = FAMILIES[family].whole_heads and config.width % config.heads
    return lost + ["heads"] * bool(uneven and "heads" not in lost)


def _has_experts(family: str) -> bool:
    return "num_local_experts" in FAMILIES[family].fields


def _shown(config: ModelConfig, paths: list[str]) -> str:
    return ", ".join(f"model.{path}={lookup(config, path)}" for path in paths)


def _comparable(config: ModelConfig) -> ModelConfig:
    """The model with everything that does not change what it computes set to one value."""
    slides = [window > 0 for window in layer_windows(config)]
    first, every = pattern(slides, "model.full_attention_every") if any(slides) else (0, 0)
    rope, moe = config.rope, config.moe
    kept = ROPE_FIELDS.get(rope.scaling, {}).values()
    rope_values = {name: getattr(rope, name) for name in ("theta", "scaling", *kept)}
    if rope.scaling == "dynamic":
        rope_values["original_seq_len"] = rope.original_seq_len
    training = {"capacity_factor": 0.0, "balance_weight": 0.0, "router_z_weight": 0.0}
    balance = "bias" if moe.balance == "bias" else "none"
    return dataclasses.replace(
        config,
        mlp_width=0 if moe.experts else config.mlp_width,
        max_seq_len=0,
        attention_multiplier=config.attention_multiplier or config.head_dim**-0.5,
        sliding_window=config.sliding_window if any(slides) else 0,
        window_from_layer=first,
        full_attention_every=every,
        rope=RopeConfig(**rope_values),
        moe=dataclasses.replace(moe, balance=balance, **training) if moe.experts else MoEConfig(),
        param_dtype="float32",
        compute_dtype="float32",
        remat="none",
        unroll=1,
        attention="auto",
    )


def _written(config: ModelConfig, name: str) -> Json:
    """The fields that the family has, whatever they lose."""
    family = FAMILIES[name]
    content: Json = {"architectures": [family.architecture], "model_type": name, "dtype": config.param_dtype}
    for field, targets in family.fields.items():
        value = lookup(config, targets.split()[0])
        content[field] = (value or None) if field in NULLABLE else value
    for field, (target, power) in family.powers.items():
        value = lookup(config, target) or config.head_dim**-0.5
        content[field] = _tidy(value ** (1 / power))
    if "attention_multiplier" in content:
        content["attention_multiplier"] = config.attention_multiplier or config.head_dim**-0.5
    content |= {field: copy.copy(values[0]) for field, values in family.accepted.items()}
    uneven = config.head_dim != config.width // config.heads
    if uneven or family.head_dim != "other":
        content["head_dim"] = config.head_dim if uneven or family.head_dim == "always" else None
    if config.moe.experts:
        weight = config.moe.balance_weight if config.moe.balance == "loss" else 0.0
        content["router_aux_loss_coef"] = _tidy(weight / config.moe.top_k)
    return content | _written_windows(config, family) | _written_rope(config, family)


def _tidy(value: float) -> int | float:
    """Without the noise of having been raised to a power and back."""
    value = float(f"{value:.12g}")
    return int(value) if value.is_integer() else value


def _written_windows(config: ModelConfig, family: Family) -> Json:
    slides = [window > 0 for window in layer_windows(config)]
    content: Json = {"sliding_window": config.sliding_window if any(slides) else None}
    if family.windows == "none":
        return {}
    if family.windows in ("switched", "late"):
        content["use_sliding_window"] = any(slides)
    if family.windows == "late":
        content["max_window_layers"] = slides.index(True) if any(slides) else DEFAULTS["max_window_layers"]
    if family.windows == "alternate" and not any(slides):
        content["sliding_window"] = family.defaults["sliding_window"]
    if family.windows in ("late", "alternate"):
        content["layer_types"] = ["sliding_attention" if slide else "full_attention" for slide in slides]
    return content


def _written_rope(config: ModelConfig, family: Family) -> Json:
    rope = config.rope
    kind = "default" if rope.scaling == "none" else rope.scaling
    content: Json = {"rope_type": kind, "rope_theta": rope.theta}
    for field, target in ROPE_FIELDS[kind].items():
        value = getattr(rope, target)
        if field in ROPE_REQUIRED or value != getattr(RopeConfig(), target):
            content[field] = value
    stretched = int(rope.original_seq_len * rope.factor) if kind in ("llama3", "yarn") else 0
    positions = config.max_seq_len or stretched or {**DEFAULTS, **family.defaults}["max_position_embeddings"]
    if kind == "dynamic":  # where it starts to stretch, and there is no other field for that
        positions = rope.original_seq_len
    return {"rope_parameters": content, "max_position_embeddings": positions}
