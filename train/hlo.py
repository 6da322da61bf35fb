"""A compiled program as text, read: its instructions, how often each runs, and what moves in memory.

The compiler's own cost figures count the body of a loop once. Here loops are followed: a loop's condition is worked out
step by step on its counters, which are plain integers, until it is false.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

# Bytes of an element; what is not listed (tokens, opaque) has none.
BYTES = {
    "pred": 1, "s4": 0.5, "u4": 0.5, "s8": 1, "u8": 1, "f8e4m3fn": 1, "f8e5m2": 1, "s16": 2, "u16": 2, "bf16": 2,
    "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8, "u64": 8, "f64": 8, "c64": 8,
}  # fmt: skip
# What only names, groups or waits for what other instructions move.
_MOVES_NOTHING = {
    "parameter", "constant", "get-tuple-element", "tuple", "bitcast", "while", "conditional", "call", "after-all",
    "opt-barrier", "partition-id", "replica-id", "iota", "async-start", "async-update", "async-done", "add-dependency",
    "call-start", "call-update",
}  # fmt: skip
_CALLS = re.compile(r"(?:calls|body|called_computations|true_computation|false_computation)=\{?%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\](\{[^}]*\})?")
_SPACE = re.compile(r"S\((\d+)\)")
_NAME = re.compile(r"%([\w.\-]+)")
_MOST_TRIPS = 1_000_000


@dataclass(frozen=True)
class Shape:
    dtype: str
    dimensions: tuple[int, ...]
    in_hbm: bool
    """Not in the chip's small fast memories, nor with the host."""

    @property
    def bytes(self) -> float:
        return float(BYTES.get(self.dtype, 0) * math.prod(self.dimensions))


@dataclass(frozen=True)
class Instruction:
    name: str
    shapes: tuple[Shape, ...]
    """Of its result; several where that is a tuple."""
    opcode: str
    operands: tuple[str, ...]
    inside: str
    """What stands between its parentheses."""
    attributes: str
    is_root: bool

    @property
    def called(self) -> list[str]:
        """Computations that run as part of it."""
        branches = [name for found in _BRANCHES.findall(self.attributes) for name in _NAME.findall(found)]
        applied = [self.attribute("to_apply")] if self.opcode in ("call", "call-start") else []
        return [*_CALLS.findall(self.attributes), *branches, *applied]

    def attribute(self, name: str) -> str:
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.attributes)
        return found.group(1) if found else ""


@dataclass
class Computation:
    name: str
    is_entry: bool
    instructions: dict[str, Instruction] = field(default_factory=dict)

    @cached_property
    def root(self) -> Instruction:
        return next(found for found in self.instructions.values() if found.is_root)

    @cached_property
    def users(self) -> dict[str, list[Instruction]]:
        found: dict[str, list[Instruction]] = {name: [] for name in self.instructions}
        for instruction in self.instructions.values():
            for operand in set(instruction.operands):
                found.setdefault(operand, []).append(instruction)
        return found

    def parameter(self, number: int) -> Instruction:
        return next(x for x in self.instructions.values() if x.opcode == "parameter" and x.inside == str(number))


class Program:
    """Computations by name, and how often each runs."""

    def __init__(self, text: str) -> None:
        self.computations = {found.name: found for found in _computations(text)}
        self.entry = next(found for found in self.computations.values() if found.is_entry)

    @cached_property
    def runs(self) -> dict[str, int]:
        """How often each computation runs, but for those that are part of one instruction."""
        found: dict[str, int] = {}

        def visit(computation: Computation, times: int) -> None:
            found[computation.name] = found.get(computation.name, 0) + times
            for instruction in computation.instructions.values():
                if instruction.opcode == "fusion" or not instruction.called:
                    continue
                trips = self.trips(computation, instruction) if instruction.opcode == "while" else 1
                for name in instruction.called:
                    visit(self.computations[name], times * trips)

        visit(self.entry, 1)
        return found

    def instructions(self) -> Iterator[tuple[Computation, Instruction, int]]:
        """Each with how often it runs; a fusion is one."""
        for name, times in self.runs.items():
            for instruction in self.computations[name].instructions.values():
                yield self.computations[name], instruction, times

    def parts(self, instruction: Instruction) -> list[Instruction]:
        """What a fusion is made of, fusions within it too; any other instruction is itself."""
        if instruction.opcode != "fusion":
            return [instruction]
        inner = self.computations[instruction.called[0]].instructions.values()
        return [part for each in inner for part in self.parts(each)]

    # --- Loops -------------------------------------------------------------------------------------------------------

    def trips(self, computation: Computation, loop: Instruction) -> int:
        """How often a loop's body runs."""
        told = re.search(r'known_trip_count"?:\s*\{"?n"?:"?(\d+)', loop.attributes)
        if told:
            return int(told.group(1))
        condition, body = (self.computations[loop.attribute(name)] for name in ("condition", "body"))
        counters = _elements(condition)
        start = computation.instructions[loop.operands[0]]
        state = {i: self._start(computation, start.operands[i]) for i in self._needed(body, counters)}
        for trip in range(_MOST_TRIPS):
            if not self._value(condition, condition.root.name, state):
                return trip
            state = {i: self._value(body, body.root.operands[i], state) for i in state}
        raise ValueError(f"{loop.name} does not end")

    def _needed(self, body: Computation, counters: set[int]) -> set[int]:
        """The elements of the loop's state that its counters are made of."""
        needed = set(counters)
        while True:
            more = {
                element for i in needed for element in self._read(body, body.root.operands[i], _elements(body))
            } | needed
            if more == needed:
                return needed
            needed = more

    def _read(self, computation: Computation, name: str, within: set[int]) -> set[int]:
        instruction = computation.instructions[name]
        if instruction.opcode == "get-tuple-element":
            return {_index(instruction)} & within
        return {element for operand in instruction.operands for element in self._read(computation, operand, within)}

    def _start(self, computation: Computation, name: str) -> int:
        """A counter's first value: a constant, or handed down from a surrounding loop that does not change it."""
        instruction = computation.instructions[name]
        if instruction.opcode in ("copy", "bitcast", "convert", "copy-start", "copy-done"):
            return self._start(computation, instruction.operands[0])
        if instruction.opcode == "get-tuple-element":
            outer, loop = self._loop_of(computation)
            element = outer.instructions[loop.operands[0]].operands[_index(instruction)]
            return self._start(outer, element)
        return self._value(computation, name, {})

    def _loop_of(self, body: Computation) -> tuple[Computation, Instruction]:
        for computation in self.computations.values():
            for instruction in computation.instructions.values():
                if instruction.opcode == "while" and instruction.attribute("body") == body.name:
                    return computation, instruction
        raise ValueError(f"{body.name} is no loop's body")

    def _value(self, computation: Computation, name: str, state: Mapping[int, int], given: tuple[int, ...] = ()) -> int:
        """A scalar, from a loop's state or a fusion's arguments."""
        instruction = computation.instructions[name]
        opcode = instruction.opcode
        if opcode == "constant":
            return {"true": 1, "false": 0}.get(instruction.inside) or int(
                float(instruction.inside.replace("false", "0"))
            )
        if opcode == "get-tuple-element":
            return state[_index(instruction)]
        if opcode == "parameter":
            return given[int(instruction.inside)]
        values = tuple(self._value(computation, operand, state, given) for operand in instruction.operands)
        if opcode == "fusion":
            inner = self.computations[instruction.called[0]]
            return self._value(inner, inner.root.name, {}, values)
        if opcode == "compare":
            return _COMPARE[instruction.attribute("direction")](*values)
        if opcode not in _ARITHMETIC:
            raise ValueError(f"{name} = {opcode}(…) is no counter")
        return _ARITHMETIC[opcode](*values)

    # --- Memory ------------------------------------------------------------------------------------------------------

    def hbm_traffic(self) -> float:
        """Bytes read from and written to the chip's main memory, each instruction's operands and results once.

        Kernels that read an operand several times read it once here, and caches there are none.
        """
        return sum((times * self._moved(computation, found) for computation, found, times in self.instructions()), 0.0)

    def _moved(self, computation: Computation, instruction: Instruction) -> float:
        opcode = instruction.opcode
        if opcode in _MOVES_NOTHING or opcode.endswith("-done"):
            return 0.0
        if opcode == "custom-call" and "AllocateBuffer" in instruction.attributes:
            return 0.0
        if opcode == "copy-start":
            return sum((_in_hbm(shape) for shape in instruction.shapes[:2]), 0.0)
        operands = [computation.instructions[name] for name in instruction.operands if name in computation.instructions]
        if opcode == "fusion":
            return self._moved_by_fusion(instruction, operands)
        if opcode in ("dynamic-slice", "gather"):
            return 2 * sum(map(_in_hbm, instruction.shapes), 0.0)
        if opcode in ("dynamic-update-slice", "scatter"):
            return 2 * sum(map(_in_hbm, operands[1].shapes if opcode[0] == "d" else operands[-1].shapes))
        if opcode.endswith("-start"):  # of a collective: its result names its operands too
            return sum(map(_in_hbm, instruction.shapes), 0.0)
        return sum(map(_in_hbm, (*instruction.shapes, *(s for found in operands for s in found.shapes))), 0.0)

    def _moved_by_fusion(self, fusion: Instruction, operands: list[Instruction]) -> float:
        inner = self.computations[fusion.called[0]]
        read = 0.0
        for number, operand in enumerate(operands):
            if len(operand.shapes) == 1 and operand.shapes[0].in_hbm:
                read += self._read_of(inner, inner.parameter(number), operand.shapes[0].bytes)
        root = inner.root
        results = [inner.instructions[name] for name in root.operands] if root.opcode == "tuple" else [root]
        written = 0.0
        for shape, result in zip(fusion.shapes, results, strict=False):
            written += _in_hbm(shape) if (update := _update(inner, result)) is None else update if shape.in_hbm else 0
        return read + written

    def _read_of(self, inner: Computation, given: Instruction, whole: float) -> float:
        """What a fusion reads of an operand: only slices of it, or nothing where it is updated in place."""
        total = 0.0
        for user in inner.users[given.name]:
            if user.opcode == "bitcast":
                total += self._read_of(inner, user, whole)
            elif user.opcode in ("dynamic-slice", "gather") and user.operands[0] == given.name:
                total += user.shapes[0].bytes
            elif user.opcode == "fusion":
                nested = self.computations[user.called[0]]
                numbers = [n for n, operand in enumerate(user.operands) if operand == given.name]
                total += sum(self._read_of(nested, nested.parameter(n), whole) for n in numbers)
            elif user.opcode != "dynamic-update-slice" or user.operands[0] != given.name:
                return whole
        return min(total, whole)


def _in_hbm(shape: Shape) -> float:
    return shape.bytes if shape.in_hbm else 0.0


def _update(inner: Computation, result: Instruction) -> float | None:
    """The bytes that are written where a result is an operand updated in place."""
    while result.opcode == "bitcast":
        result = inner.instructions[result.operands[0]]
    if result.opcode != "dynamic-update-slice":
        return None
    return inner.instructions[result.operands[1]].shapes[0].bytes


_COMPARE: dict[str, Callable[[int, int], bool]] = {
    "LT": lambda a, b: a < b,
    "LE": lambda a, b: a <= b,
    "GT": lambda a, b: a > b,
    "GE": lambda a, b: a >= b,
    "EQ": lambda a, b: a == b,
    "NE": lambda a, b: a != b,
}
_ARITHMETIC: dict[str, Callable[..., int]] = {
    "add": lambda a, b: a + b,
    "subtract": lambda a, b: a - b,
    "multiply": lambda a, b: a * b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "minimum": min,
    "maximum": max,
    "select": lambda which, a, b: a if which else b,
    "copy": lambda a: a,
    "bitcast": lambda a: a,
    "convert": lambda a: a,
    "reshape": lambda a: a,
    "broadcast": lambda a: a,
}


def _index(instruction: Instruction) -> int:
    found = re.search(r"\bindex=(\d+)", instruction.attributes)
    assert found is not None, instruction
    return int(found.group(1))


def _elements(computation: Computation) -> set[int]:
    """The elements of a loop's state that a computation reads."""
    return {_index(x) for x in computation.instructions.values() if x.opcode == "get-tuple-element"}


# --- Reading ---------------------------------------------------------------------------------------------------------


def _computations(text: str) -> Iterator[Computation]:
    current: Computation | None = None
    for line in text.splitlines():
        if current is None:
            header = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .*\{", line)
            if header:
                current = Computation(header.group(2), bool(header.group(1)))
        elif re.match(r"\}(, execution_thread|$)", line):  # attributes may have a line of their own that begins so
            yield current
            current = None
        elif found := _instruction(line):
            current.instructions[found.name] = found


def _instruction(line: str) -> Instruction | None:
    head = re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line)
    if not head:
        return None
    rest = line[head.end() :]
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    close = _closing(rest, len(opcode))
    inside = rest[len(opcode) + 1 : close]
    return Instruction(
        name=head.group(2),
        shapes=tuple(_shape(*found) for found in _SHAPE.findall(shape)),
        opcode=opcode,
        operands=tuple(_NAME.findall(inside)),
        inside=inside,
        attributes=rest[close + 1 :],
        is_root=bool(head.group(1)),
    )


def _shape(dtype: str, dimensions: str, layout: str) -> Shape:
    space = _SPACE.search(layout)
    sizes = tuple(int(size) for size in dimensions.split(",") if size)
    return Shape(dtype, sizes, space is None or space.group(1) == "0")


def _closing(text: str, start: int) -> int:
    """Where the parenthesis at `start` is closed."""
    depth = 0
    for i in range(start, len(text)):
        depth += (text[i] == "(") - (text[i] == ")")
        if depth == 0:
            return i
    raise ValueError(f"a parenthesis is not closed: {text[:80]}")
