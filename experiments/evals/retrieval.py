"""Whether a model finds again what it read long before: files of made code, and a question at their end.

    needle       a constant that is defined once among functions and a few other constants; what is its value?
    variables    a value that goes from name to name, among other values that do; which has the last name?

A length is of approximate tokens, so that the same texts are asked of every model: CHARACTERS of text each, which is
few, and room for the answer. NAME:1024+4096 asks other lengths. What is longer than a model's context is not run.
"""

import random
import re
from collections.abc import Callable, Sequence

from codelm.errors import UserError
from experiments.evals.catalogue import Data
from experiments.evals.postprocessing import FIRST_LINE
from experiments.evals.suite import NotRun, Outcome, Prompt, Suite, Task, Tools, digest

LENGTHS = tuple(1024 << n for n in range(8))  # 1K to 128K
SHORTEST = 512
CHARACTERS = 2.25  # of a token: what a vocabulary of 4,096 pieces needs for these texts
DEPTHS = (0, 25, 50, 75, 100)  # how far into the text in %, where the value is given
EACH = 4  # tasks of each length and depth
NEW_TOKENS = 16
HOPS = 4  # names that a value goes on to
_ROOM = 64  # tokens of a length that are left free: for the answer, and for what a format puts around a text
_VERBS = ("load", "save", "parse", "merge", "split", "count", "print", "check", "build", "order", "shift", "paint")
_NOUNS = ("table", "river", "window", "ticket", "garden", "parcel", "bridge", "letter", "kettle", "market", "basket")
_KINDS = ("amber", "brief", "clear", "dusty", "early", "faint", "grand", "hasty", "inner", "joint", "light", "mild")
_ASKED = 1  # of the places
_ANSWER = re.compile(r"\s*(\d+)")

# A place in the text in %, and what stands there.
Statement = tuple[float, str]


def needle(data: Data) -> Suite:
    return _suite("needle", "a constant in a long file", _needle, data)


def variables(data: Data) -> Suite:
    return _suite("variables", "a value that goes from name to name in a long file", _variables, data)


def _suite(
    name: str, about: str, make: Callable[[random.Random, float], tuple[list[Statement], str, str]], data: Data
) -> Suite:
    lengths = _lengths(name, data.given)
    tasks = [
        _task(name, length, depth, number, make) for number in range(EACH) for depth in DEPTHS for length in lengths
    ]
    return Suite(name, 1, about, tasks, _attempt, {"exact": "mean"}, digest(tasks), FIRST_LINE, NEW_TOKENS)


def _lengths(name: str, given: str) -> Sequence[int]:
    try:
        lengths = [int(part) for part in given.split("+")] if given else LENGTHS
    except ValueError:
        raise UserError(f"{name}:{given}: lengths are numbers of tokens, such as {name}:1024+4096") from None
    if min(lengths) < SHORTEST:
        raise UserError(f"{name}:{given}: {min(lengths)} tokens have no room for it; ask {SHORTEST} or more")
    return lengths


def _task(
    suite: str,
    length: int,
    depth: int,
    number: int,
    make: Callable[[random.Random, float], tuple[list[Statement], str, str]],
) -> Task:
    rng = random.Random(f"{suite} {length} {depth} {number}")
    statements, name, value = make(rng, depth)
    question = f"\n\nassert {name} =="
    text = _file(rng, int(CHARACTERS * (length - _ROOM)) - len(question), statements) + question
    slices = {"length": f"{length:>6}", "depth": f"{depth:>3}%"}  # padded, so that they sort
    return Task(f"{length} {depth}% {number}", Prompt(text), value, slices, {"length": length})


def _attempt(task: Task, tools: Tools) -> Outcome:
    length = task.checks["length"]
    if tools.context and length > tools.context:
        raise NotRun(f"{length:,} tokens are more than the context of {tools.context:,}")
    line = FIRST_LINE.apply(task, tools.ask(task.prompt))
    found = _ANSWER.match(line)
    return Outcome(line, {"exact": float(found is not None and found[1] == task.reference)})


# ---- what is asked for ----


def _needle(rng: random.Random, depth: float) -> tuple[list[Statement], str, str]:
    """Statements, the name that is asked for, and its value."""
    places = _places(rng, depth)
    names, values = [name.upper() for name in _names(rng, len(places))], _values(rng, len(places))
    stated = [(place, f"{name} = {value}\n") for place, name, value in zip(places, names, values, strict=True)]
    return stated, names[_ASKED], values[_ASKED]


def _variables(rng: random.Random, depth: float) -> tuple[list[Statement], str, str]:
    """Each chain goes on evenly from its place to the end of the text."""
    starts, length = _places(rng, depth), HOPS + 1
    names, values = _names(rng, length * len(starts)), _values(rng, len(starts))
    chains = [names[at : at + length] for at in range(0, len(names), length)]
    stated: list[Statement] = []
    for start, chain, value in zip(starts, chains, values, strict=True):
        places = [start + (100 - start) * at / HOPS for at in range(length)]
        lines = [f"{name} = {given}\n" for name, given in zip(chain, [value, *chain], strict=False)]
        stated += zip(places, lines, strict=True)
    return stated, chains[_ASKED][-1], values[_ASKED]


def _places(rng: random.Random, depth: float) -> list[float]:
    """Of what is asked for and of others: one before and one behind it, so that neither the first nor the last number
    of a text is ever the answer."""
    return [0, depth, rng.uniform(0, 100), 100]


def _values(rng: random.Random, count: int) -> list[str]:
    """Five digits each, all different; no other number in the text has more than two."""
    return [str(value) for value in rng.sample(range(10_000, 100_000), count)]


def _names(rng: random.Random, count: int) -> list[str]:
    """None is in the name of a function."""
    return rng.sample([f"{kind}_{noun}" for kind in _KINDS for noun in _NOUNS], count)


# ---- the text around it ----


def _file(rng: random.Random, characters: int, statements: Sequence[Statement]) -> str:
    """The statements among functions: of so many characters at most, and hardly fewer."""
    room = characters - sum(len(text) + 1 for _, text in statements)
    functions: list[str] = []
    for make in (_function, _short_function):
        while len(made := make(rng)) < room:
            functions.append(made)
            room -= len(made) + 1
    shares = [(100 * (number + 0.5) / len(functions), text) for number, text in enumerate(functions)]
    return "\n".join(text for _, text in sorted([*statements, *shares], key=lambda piece: piece[0]))


def _function(rng: random.Random) -> str:
    first, second = rng.sample(_NOUNS, 2)
    return rng.choice(_BODIES).format(
        name=_function_name(rng),
        other=_function_name(rng),
        first=first,
        second=second,
        small=rng.randrange(2, 10),
        large=rng.randrange(10, 100),
    )


def _short_function(rng: random.Random) -> str:
    return f"def {_function_name(rng)}(value):\n    return value + {rng.randrange(10, 100)}\n"


def _function_name(rng: random.Random) -> str:
    return f"{rng.choice(_VERBS)}_{rng.choice(_NOUNS)}_{rng.randrange(10, 100)}"


_BODIES = (
    """def {name}({first}, {second}):
    total = {first} + {second} * {large}
    for step in range({large}):
        if step % {small} == 0:
            total = {other}(total, step)
    return total
""",
    """def {name}({first}s, limit={large}):
    found = []
    for {first} in {first}s:
        if {first}.{second} is not None and len(found) < limit:
            found.append({first}.{second})
    return found
""",
    """def {name}({first}):
    if not {first}:
        raise ValueError("no {first} to {other}")
    {second} = {first}[:{small}]
    return {{"{second}": {second}, "rest": {first}[{small}:]}}
""",
    """class {name}:
    def __init__(self, {first}, {second}=None):
        self.{first} = {first}
        self.{second} = {second} or {other}({first}, {small})

    def __len__(self):
        return len(self.{first}) + {large}
""",
)
