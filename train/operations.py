"""What XLA made of a program: its operations by name, what they do, and the line of ours that each comes from.

>>> named, found = operations(compiled.as_text())
>>> found["fusion.12"]
Operation(kind="matrix products", phase="backward", what="dot_general bsd,dkh->bskh", where="codelm/model.py:98 heads")
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from train.hlo import Instruction, Program

ROOT = Path(__file__).parent.parent
ROOMS = ("codelm", "data", "train", "infer", "experiments")
ATTENTION = "codelm/attention.py:"
UPDATE = re.compile(r"train/step\.py:\d+ updated$")
# What calls these says more about a product than their own lines do.
_PRODUCTS = re.compile(r"codelm/matmuls\.py:|\S+ _?product$")

COLLECTIVES = re.compile(r"all-|reduce-scatter|collective-|ragged-all-to-all|send|recv")
_DOTS = {"dot", "convolution", "ragged-dot"}
_LIBRARY = re.compile(r'custom_call_target="[^"]*(gemm|matmul|dot|cublas)', re.IGNORECASE)
_MOVES = {
    *("copy", "copy-start", "copy-done", "transpose", "reshape", "slice", "dynamic-slice", "dynamic-update-slice"),
    *("concatenate", "pad", "broadcast", "reverse", "iota", "convert"),
}
_FREE = {"parameter", "constant", "bitcast", "tuple", "get-tuple-element"}

_PATH = re.compile(r'op_name="([^"]*)"')
_FRAME = re.compile(r"^(\d+) \{file_location_id=(\d+) parent_frame_id=(\d+)\}")
_LOCATION = re.compile(r"^(\d+) \{file_name_id=(\d+) function_name_id=(\d+) line=(\d+)")
_NAME = re.compile(r'^(\d+) "(.*)"$')


@dataclass(frozen=True)
class Operation:
    """What one operation is for."""

    kind: str
    """attention, matrix products, collectives, copies or element-wise; of a fusion, the costliest thing in it."""
    phase: str
    """forward, backward, recomputed (for backward), update, or other: where XLA does not say."""
    what: str
    """What JAX called it."""
    where: str
    """file:line of ours, and the function; empty where XLA does not say."""


def operations(text: str) -> tuple[str, dict[str, Operation]]:
    """The name of a compiled module, and its operations, out of its text."""
    program, frames = Program(text), dict(_frames(text))
    module = text.split("HloModule ", 1)[1].split(",", 1)[0].split()[0]
    by_name = {name: one for found in program.computations.values() for name, one in found.instructions.items()}
    return module, {name: _operation(one, by_name, program, frames) for name, one in by_name.items()}


def _frames(text: str) -> Iterator[tuple[int, list[str]]]:
    """For each stack of the table in front of the text its frames that are ours, innermost first."""
    sections: dict[str, list[str]] = {}
    for block in text.split("\n\n"):
        name, _, lines = block.strip("\n").partition("\n")
        sections.setdefault(name, lines.splitlines())

    def names(table: str) -> dict[str, str]:
        return {told[1]: told[2] for line in sections.get(table, ()) if (told := _NAME.match(line))}

    files, functions = names("FileNames"), names("FunctionNames")
    places = {
        told[1]: ours(files[told[2]], told[4], functions[told[3]])
        for line in sections.get("FileLocations", ())
        if (told := _LOCATION.match(line))
    }
    stacks: dict[int, list[str]] = {}
    for line in sections.get("StackFrames", ()):
        if told := _FRAME.match(line):
            # Parents come before, and are counted from 1, so that 0 is none.
            before = stacks.get(int(told[3]) - 1, [])
            place = places[told[2]]
            stacks[int(told[1])] = [place, *before] if place else before
    yield from stacks.items()


def ours(file: str, line: str, function: str = "") -> str:
    """file:line below the repository's root, and the function; empty for what is somebody else's."""
    path = Path(file)
    inside = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    named = [part for part in function.split(".") if not part.startswith("<")]
    return f"{inside.as_posix()}:{line} {''.join(named[-1:])}".strip() if inside.parts[0] in ROOMS else ""


def _operation(
    instruction: Instruction,
    by_name: Mapping[str, Instruction],
    program: Program,
    frames: Mapping[int, list[str]],
) -> Operation:
    parts = [instruction, *_inside(instruction, program)]
    products = [part for part in parts if part.opcode in _DOTS or _LIBRARY.search(part.attributes)]
    said = next((part for part in (*products, *parts) if _path(part)), None)
    # XLA forgets where some products and copies are from: what they are made of is from near there.
    near = said or _near(instruction, by_name)
    stack, path = (_stack(near, frames), _path(near)) if near else ([], "")
    what = _what(path) if said else (*products, instruction)[0].opcode
    return Operation(_kind(parts, bool(products), stack), _phase(path, stack), what, _where(stack))


def _path(instruction: Instruction) -> str:
    """What JAX calls it and is inside of; of several that XLA made one, the first."""
    told = _PATH.search(instruction.attributes)
    return told[1].removeprefix("(").split(":")[0] if told else ""


def _near(instruction: Instruction, by_name: Mapping[str, Instruction], steps: int = 3) -> Instruction | None:
    """The first operand, or operand's operand and so on, of which XLA says where it is from."""
    operands = [by_name[name] for name in instruction.operands if name in by_name]
    for operand in operands:
        if _path(operand) and operand.opcode not in _FREE:
            return operand
    found = (_near(operand, by_name, steps - 1) for operand in operands if steps > 1)
    return next((one for one in found if one), None)


def _inside(instruction: Instruction, program: Program) -> Iterator[Instruction]:
    """What a fusion or a call is made of, its result first. What a reduction applies is only a sum or so."""
    if instruction.opcode not in ("fusion", "call", "async-start", "custom-call"):
        return
    for name in instruction.called:
        for part in reversed(program.computations[name].instructions.values()):
            yield part
            yield from _inside(part, program)


def _stack(instruction: Instruction, frames: Mapping[int, list[str]]) -> list[str]:
    """Frames of ours, innermost first. Without a table of stacks XLA names one file and line."""
    if told := re.search(r"stack_frame_id=(\d+)", instruction.attributes):
        return frames.get(int(told[1]), [])
    told = re.search(r'source_file="([^"]*)".*?source_line=(\d+)', instruction.attributes)
    place = ours(told[1], told[2]) if told else ""
    return [place] if place else []


def _kind(parts: list[Instruction], products: bool, stack: list[str]) -> str:
    opcodes = {part.opcode for part in parts} - _FREE - {"fusion", "call"}
    if any(COLLECTIVES.match(opcode) for opcode in opcodes):
        return "collectives"
    if any(place.startswith(ATTENTION) for place in stack):
        return "attention"
    if products:
        return "matrix products"
    return "copies" if opcodes <= _MOVES else "element-wise"


def _phase(path: str, stack: list[str]) -> str:
    if "rematted_computation" in path:
        return "recomputed"
    if "transpose(" in path:
        return "backward"
    if not stack:
        return "other"
    return "update" if any(UPDATE.match(place) for place in stack) else "forward"


def _what(path: str) -> str:
    """The primitive, and of an einsum what it contracts."""
    *scopes, last = (scope for scope in re.split(r"[/()]", path) if scope)
    formula = next((scope for scope in reversed(scopes) if "->" in scope), "")
    return f"{last} {formula}".strip()


def _where(stack: list[str]) -> str:
    return next((place for place in stack if not _PRODUCTS.match(place)), "")
