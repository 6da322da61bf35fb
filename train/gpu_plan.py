"""A plan for GPUs, from arithmetic alone: nothing is compiled, and the figures are of sizes and published rates.

Memory is what the state takes, the gradient, what backward keeps of each layer by the remat policy, one layer's
values, and the loss's. Collectives are those of fsdp and data: each use of the weights gathers them, and gradients are
summed once a part. Those of tensor and expert axes are left out.
"""

from codelm.arithmetic import BYTES, count_parameters, training_flops_per_token
from codelm.config import Config, ModelConfig, mesh_shape
from codelm.errors import UserError
from train.planning import Estimate, Plan, finished
from train.topologies import Gpus

_MOMENTS = {"adamw": 8, "muon": 8, "adafactor": 4}  # bytes of the optimizer's state a parameter, at most
_LOSS = 3 * 4 * 2**25  # bytes: a chunk of logits, what becomes of it, and its gradient


def plan_gpus(config: Config, stage: str, gpus: Gpus) -> Plan:
    shape, model, chip = mesh_shape(config, gpus.count), config.model, gpus.chip
    if shape["context"] > 1:
        raise UserError("context parallelism on GPUs is not reckoned: set mesh.context=1, or plan for a TPU topology")
    parts, again = config.train.accumulate, model.remat == "full"
    tokens = config.data.batch_size // parts * config.data.seq_len / (shape["data"] * shape["fsdp"] * shape["expert"])
    here = count_parameters(model).total / (shape["tensor"] * shape["expert"])  # parameters that a device computes with
    stored = here / shape["fsdp"]
    memory = {
        "parameters": stored * BYTES[model.param_dtype],
        "optimizer": stored * _MOMENTS[config.train.optimizer],
    }
    values = tokens * _values(model) / shape["tensor"]
    kept = model.depth * tokens * _kept(model) / shape["tensor"]
    peak = sum(memory.values()) + 4 * stored + 2 * (kept + values) + _LOSS

    flops = parts * tokens * training_flops_per_token(model, config.data.seq_len) / shape["tensor"]
    flops *= 4 / 3 if again else 1.0
    uses = parts * (3 if again else 2)
    update = 2 * (sum(memory.values()) + 4 * stored)
    # Each value is written once and read once, forward, again where it is recomputed, and twice backward.
    moved = 2 * here * (uses + parts) + update + 2 * 2 * model.depth * values * (uses + parts)
    sent = _sent(here, shape, uses, parts)
    rate = chip.link if gpus.count <= gpus.per_machine else chip.network
    for row in sent.values():
        row["seconds"] = row["bytes"] / rate
    estimate = Estimate(
        method="arithmetic",
        fits=peak <= chip.memory,
        peak=peak,
        memory=memory,
        flops=flops,
        seconds={
            "compute": flops / chip.flops,
            "memory": moved / chip.bandwidth,
            "collectives": sum(row["seconds"] for row in sent.values()),
        },
        collectives=sent,
        by_axis={},
    )
    return finished(config, stage, gpus.name, shape, chip, estimate)


def _kept(model: ModelConfig) -> int:
    """Values a token that backward is given of a layer."""
    if model.remat in ("full", "offload"):
        return model.width
    saved = model.width + 2 * (model.heads + model.kv_heads) * model.head_dim + 2 * _hidden(model)
    return saved if model.remat == "matmuls" else _values(model)


def _values(model: ModelConfig) -> int:
    """Values a token that a layer makes in all: streams and norms, heads before and after they are turned, hidden."""
    return 6 * model.width + 4 * (model.heads + model.kv_heads) * model.head_dim + 3 * _hidden(model)


def _hidden(model: ModelConfig) -> int:
    moe = model.moe
    return moe.expert_width * (moe.top_k + moe.shared_experts) if moe.experts else model.mlp_width


def _sent(here: float, shape: dict[str, int], uses: int, parts: int) -> dict[str, dict[str, float]]:
    fsdp, data = shape["fsdp"], shape["data"]
    sent: dict[str, dict[str, float]] = {}
    if fsdp > 1:
        share = (fsdp - 1) / fsdp
        sent["all-gather"] = {"count": float(uses), "bytes": 2 * here * share * uses}
        sent["reduce-scatter"] = {"count": float(parts), "bytes": 4 * here * share * parts}
    if data > 1:
        sent["all-reduce"] = {"count": float(parts), "bytes": 2 * 4 * here / fsdp * (data - 1) / data * parts}
    return sent
