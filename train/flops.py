"""Floating-point operations of a traced program on one device: matrix products and attention kernels.

Counted in the program as it is traced, recomputation and all, because the compiler's own figures leave loops and Pallas
kernels out. A loop counts as often as it turns; a product is shared by the devices over whose axes it is split. What is
no matrix product (norms, softmax, the optimizer) is not counted: it is memory that bounds it.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn
from jax.sharding import PartitionSpec

from codelm.config import MoEConfig

# Products of a block of queries with one of keys that each splash kernel makes: scores, their gradient, and so on.
_SPLASH = {"splash_mha_fwd": 2, "splash_mha_dkv": 4, "splash_mha_dq": 3}


def flops_on_device(program: ClosedJaxpr, mesh: Mapping[str, int], moe: MoEConfig) -> float:
    """Of one, where work is shared evenly: experts are used alike, and queries of a long row dealt out."""
    return sum(times * _of(equation, mesh, moe) for equation, times in _equations(program.jaxpr, 1))


def _equations(program: Jaxpr, times: int) -> Iterator[tuple[JaxprEqn, int]]:
    """All that compute something, with how often they run."""
    for equation in program.eqns:
        name = equation.primitive.name
        if name == "pallas_call":
            yield equation, times
            continue
        inner = [_open(found) for value in equation.params.values() for found in _programs(value)]
        if name == "while" and any(_products(body) for body in inner):
            raise ValueError("a product in a loop that does not say how often it turns")
        turns = times * (equation.params["length"] if name == "scan" else 1)
        for body in inner:
            yield from _equations(body, turns)
        if not inner:
            yield equation, times


def _programs(value: Any) -> list[Any]:
    return [
        each
        for each in (value if isinstance(value, tuple | list) else [value])
        if isinstance(each, ClosedJaxpr | Jaxpr)
    ]


def _open(program: ClosedJaxpr | Jaxpr) -> Jaxpr:
    return program.jaxpr if isinstance(program, ClosedJaxpr) else program


def _products(program: Jaxpr) -> bool:
    counted = ("dot_general", "ragged_dot_general", "pallas_call")
    return any(equation.primitive.name in counted for equation, _ in _equations(program, 1))


def _of(equation: JaxprEqn, mesh: Mapping[str, int], moe: MoEConfig) -> float:
    name = equation.primitive.name
    if name == "dot_general":
        return _product(equation) / _devices(equation, mesh)
    if name.startswith("ragged_dot"):
        return _ragged(equation, moe)
    if name == "pallas_call":
        return _attention(equation)
    return 0.0


def _shape(variable: Any) -> tuple[int, ...]:
    return variable.aval.shape


def _product(equation: JaxprEqn) -> float:
    (summed, _), _ = equation.params["dimension_numbers"]
    left, result = _shape(equation.invars[0]), _shape(equation.outvars[0])
    return 2.0 * math.prod(result) * math.prod(left[i] for i in summed)


def _devices(equation: JaxprEqn, mesh: Mapping[str, int]) -> int:
    """Over how many a product is split. Within a shard_map shapes are one device's, and nothing is."""
    axes: set[str] = set()
    for variable in (*equation.invars, *equation.outvars):
        sharding = getattr(variable.aval, "sharding", None)
        for entry in sharding.spec if sharding is not None else PartitionSpec():
            axes |= {entry} if isinstance(entry, str) else set(entry or ())
    return math.prod(mesh[axis] for axis in axes)


def _ragged(equation: JaxprEqn, moe: MoEConfig) -> float:
    """Of experts: there are rows for the worst case, and as many are filled as when all experts are used evenly."""
    left, right = map(_shape, equation.invars[:2])
    result = _shape(equation.outvars[0])
    # Of the gradient of the matrices, which is one for each expert, or of rows.
    experts, columns = (result[0], right[1]) if len(result) == 3 else (right[0], result[1])
    filled = moe.top_k * experts / (moe.experts * min(moe.top_k, experts))
    return 2.0 * left[0] * left[1] * columns * filled


def _attention(equation: JaxprEqn) -> float:
    """Of a splash kernel: its share of the blocks that its mask does not leave out."""
    said = str(equation.params.get("name"))
    products = next((count for kernel, count in _SPLASH.items() if said.startswith(kernel)), None)
    if products is None:
        raise ValueError(f"{said} is a kernel whose products nobody has counted")
    operands: Any = equation.invars
    floats = [_shape(operand) for operand in operands if operand.aval.dtype.kind not in "iu"]
    (*batch, heads, queries, width), (*_, keys, _) = floats[:2]
    grid = equation.params["grid_mapping"]
    block = grid.block_mappings[0].block_shape[-2].block_size
    rows, columns, shares = queries // block, keys // block, keys // queries
    # A window makes the innermost dimension of the grid as narrow as what it lets through.
    most = grid.grid[-1] if grid.grid[-1] < (rows if "dkv" in said else columns) else columns
    blocks = sum(min(row + 1, most) for row in range(columns)) / shares
    return 2.0 * products * math.prod(batch) * heads * blocks * block**2 * width
