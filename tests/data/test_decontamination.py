"""What overlaps a benchmark is found however it was changed, and ordinary code is left alone."""

import pickle
from collections import Counter, defaultdict
from dataclasses import replace

import pytest

from data import benchmarks, decontamination
from data.benchmarks import Problem
from data.decontamination import Index
from data.document import Document, Drop
from experiments import planting
from tests.data import standard_library
from tests.data.test_benchmarks import SHARED

HOST = standard_library.texts()["textwrap.py"]

BASKETS = '''def weave_baskets(reeds, width):
    """Weave the reeds, thickest first, into baskets of the given width; reeds left over at the end are burnt.
    >>> weave_baskets([3, 1, 2], 2)
    [5]
    """
'''
WEAVING = """    baskets, current = [], []
    for reed in sorted(reeds, reverse=True):
        current.append(reed)  # thickest first
        if len(current) == width:
            baskets.append(sum(current))
            current = []
    return baskets
"""
TESTS = "assert weave_baskets([4, 4, 9, 1], 2) == [13, 5]\nassert weave_baskets([], 1) == []"
LANTERN = "def lantern_glow(wick):\n    return wick * 7 + 3\n"
CANDLES = "def snuff(candles, first):\n    candles[first].remove(first)\n    return candles\n"
ROPES = """def shortest_rope(ropes):
    'Of all the ropes that hang on the wall of the barn, give the shortest.'
"""
SHORTEST = "    return sorted(ropes, key=len)[0]\n"
PROBLEMS = [
    Problem("crafts", "C/1", BASKETS + WEAVING, BASKETS, WEAVING, TESTS),
    Problem("crafts", "C/2", ROPES + SHORTEST, ROPES, SHORTEST),
    Problem("tiny", "41", LANTERN, "Write a function to tell how brightly a lantern glows by its wick.", LANTERN),
    Problem("tiny", "42", CANDLES, "Snuff the candles.", CANDLES),
]
INDEX = decontamination.build(PROBLEMS)


def overlap(text: str, index: Index = INDEX, language: str = "Python") -> str:
    return decontamination.overlap(index, planting.planted(HOST, text), language)


def renamed(text: str, **names: str) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return text


OTHER_NAMES = {"weave_baskets": "f", "baskets": "out", "current": "buf", "reeds": "xs", "reed": "x", "width": "n"}
FOUND = {
    "verbatim": (BASKETS + WEAVING, "crafts C/1: 13-gram"),
    "docstring only": (BASKETS.replace("weave_baskets", "g") + "    pass\n", "crafts C/1: 13-gram"),
    "solution only": ("def g(reeds, width):\n" + WEAVING, "crafts C/1: 13-gram"),
    "half of the solution": ("def g(reeds, width):\n" + "".join(WEAVING.splitlines(True)[:4]), "crafts C/1: 13-gram"),
    "without comments": (BASKETS[:38] + "\n" + WEAVING.replace("  # thickest first", ""), "crafts C/1: 13-gram"),
    "on one line": (" ".join((BASKETS + WEAVING).split()), "crafts C/1: 13-gram"),
    "renamed": ("def f(xs, n):\n" + renamed(WEAVING, **OTHER_NAMES), "crafts C/1: renamed"),
    "the tests": (TESTS.replace(",", " ,\n"), "crafts C/1: 10-gram"),
    "short": (LANTERN, "tiny 41: exact"),
    "short, in a class": ("class A:\n  def lantern_glow( wick ): return (wick*7)+3", "tiny 41: exact"),
    "short, renamed": (renamed(CANDLES, snuff="f", candles="c", first="i"), "tiny 42: renamed, exact"),
    "question of 13 words": ("# Write a function to tell how brightly a lantern glows by its wick", "tiny 41: 13-gram"),
}
CLEAN = {
    "nothing": "",
    "ten words of many": "# baskets of the given width reeds left over at the end",
    "a short body": "def g(barn):\n    ropes = barn.ropes()\n" + SHORTEST,
    "another formula": LANTERN.replace("7", "8"),
    "a formula, renamed": renamed(LANTERN, lantern_glow="f", wick="x"),
    "a short question": "# Snuff the candles.",
    "the answer to a short one alone": "def g(wick):\n    return wick * 7 + 3\n",
    "renamed and another attribute": renamed(CANDLES, snuff="f", candles="c", first="i", remove="append"),
    "renamed, not one for one": renamed(CANDLES, snuff="f", candles="c").replace("return c", "return first"),
    "renamed, a third of it": "def f(xs, n):\n" + renamed("".join(WEAVING.splitlines(True)[:3]), **OTHER_NAMES),
}


@pytest.mark.parametrize("way", FOUND)
def test_planted_is_found_and_said_by_which_rule(way: str) -> None:
    text, detail = FOUND[way]
    assert overlap(text) == detail
    assert overlap(text.replace("\n", "\r\n")) == detail


@pytest.mark.parametrize("way", CLEAN)
def test_what_only_looks_like_it_is_left_alone(way: str) -> None:
    assert overlap(CLEAN[way]) == ""


@pytest.mark.parametrize("text", ["", " \n", "+-*", "x", "def", "'", '"""', "\ud800", "\0", "é" * 99])
def test_any_text_can_be_looked_at(text: str) -> None:
    assert decontamination.overlap(INDEX, text, "Python") == ""
    assert decontamination.overlap(INDEX, text, "") == ""


def test_at_the_very_ends_of_a_text() -> None:
    for text, detail in FOUND.values():
        assert decontamination.overlap(INDEX, text, "Python") == detail


def test_the_step_drops_with_the_detail_and_changes_nothing_else() -> None:
    step = decontamination.step(INDEX)
    clean = Document(HOST, "a.py", "r", "Python", "MIT", "here")
    counts = Counter[str]()
    assert step(clean, counts) is clean
    assert step(replace(clean, text=LANTERN), counts) == Drop("contaminated", "tiny 41: exact")
    assert not counts


def test_an_index_travels_to_other_processes() -> None:
    copy = pickle.loads(pickle.dumps(INDEX))
    assert {way: overlap(text, copy) for way, (text, _) in FOUND.items()} == {w: d for w, (_, d) in FOUND.items()}


def test_no_benchmarks_nothing_found() -> None:
    nothing = decontamination.build([])
    assert all(overlap(text, nothing) == "" for text, _ in FOUND.values())


def test_what_three_problems_share_is_a_template() -> None:
    setup = "from crafts import reeds as r, looms as l, dyes as d, knots as k, beads as b, pins as p\n"
    assert len(setup.split()) > 13

    def problem(n: int) -> Problem:
        return Problem("crafts", str(n), f"{setup}def craft_number_{n}(reeds):\n    return {n}\n")

    assert overlap(setup, decontamination.build([problem(n) for n in range(2)])) == "crafts 0: 13-gram"
    assert overlap(setup, decontamination.build([problem(n) for n in range(3)])) == ""
    # A row for each line to infill is one problem all the same, also where layout differs.
    rows = [Problem("crafts", f"{n}", BASKETS + WEAVING, BASKETS[: -9 * n]) for n in range(1, 9)]
    assert overlap(BASKETS + WEAVING, decontamination.build(rows)) == "crafts 1: 13-gram"
    rows = [Problem("crafts", f"{n}", BASKETS + WEAVING + "#" * n) for n in range(1, 9)]
    assert overlap(FOUND["renamed"][0], decontamination.build(rows)) == "crafts 1: renamed"


def test_rows_of_numbers_say_nothing() -> None:
    numbers = ", ".join(map(str, range(40)))
    index = decontamination.build([Problem("sums", "1", tests=f"assert total([{numbers}]) == 780")])
    assert overlap(f"x = [{numbers}]", index) == ""
    assert overlap(f"print(total([{numbers}]))", index) == ""
    assert overlap(f"assert total([{numbers}])", index) == "sums 1: 13-gram"
    switches = "True, False, False, True, True, False, True, False, False, False, True, True, False, True"
    assert overlap(switches, decontamination.build([Problem("sums", "1", tests=switches)])) == ""
    letters = "a b c d e f g h i j k l m n o p q r s t u v w x y z"
    assert overlap(letters, decontamination.build([Problem("sums", "1", prompt=letters)])) == ""


def test_a_part_of_very_long_tests_is_found() -> None:
    calls = [f"assert tie_knot({n * 7919 % 1000}, 'hemp{n}') is Knot.GRANNY" for n in range(2000)]
    index = decontamination.build([Problem("knots", "1", tests="\n".join(calls))])
    assert len(index.long_runs.hashes) <= 512
    assert overlap("\n".join(calls[900:910]), index) == "knots 1: 13-gram"
    assert overlap("assert tie_knot(1, 'silk') is Knot.GRANNY", index) == ""


LOOM = """function weaveCloth(threads, looms) {
  let cloth = []; // what is woven
  for (const thread of threads) {
    if (looms.has(thread) && thread.length > 3) { cloth.push(looms.get(thread) + 1); }
  }
  return cloth;
}
"""
THREADS = {"weaveCloth": "f", "threads": "xs", "thread": "x", "looms": "m", "cloth": "out"}
ABOUT = "level: for weavers and dyers only"
OTHER_LAYOUT = [
    Problem(
        "looms",
        "1",
        other=(LOOM, "Which loom weaves the widest cloth, if the thread is neither dyed nor waxed?", ABOUT),
    ),
]


def test_other_languages_and_layouts() -> None:
    index = decontamination.build(OTHER_LAYOUT)
    assert overlap(LOOM, index, "JavaScript") == "looms 1: 13-gram"
    assert overlap(f"// {ABOUT}", index, "JavaScript") == ""
    changed = renamed(LOOM, **THREADS).replace("// what is woven", "/* a comment */")
    assert overlap(changed, index, "JavaScript") == "looms 1: renamed"
    assert overlap(changed.replace("push", "unshift"), index, "JavaScript") == ""
    question = "The user asks: which loom weaves the widest cloth,\nif the thread is neither dyed"
    assert overlap(question.replace("which", "Which"), index, "Markdown") == "looms 1: 10-gram"


def test_prose_of_an_unknown_layout_is_not_code() -> None:
    index = decontamination.build(OTHER_LAYOUT)
    prose = "Where old mills grind the finest flour, if the stream is neither low nor frozen? "
    assert overlap(prose * 3, index, "Markdown") == ""


real = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no benchmarks at {SHARED}")


@pytest.fixture(scope="module")
def real_problems() -> list[Problem]:
    """Every other one, and of infilling, which is HumanEval's programs cut at other places, a few."""
    problems = benchmarks.load(SHARED)
    return [problem for i, problem in enumerate(problems) if i % (32 if "infilling" in problem.benchmark else 2) == 0]


@pytest.fixture(scope="module")
def real_index(real_problems: list[Problem]) -> Index:
    return decontamination.build(real_problems)


# What experiments/decontamination.py measures on all problems, less what the sample may be worse.
FLOORS = {
    "verbatim": 1.0,
    "reformatted": 0.95,
    "renamed": 0.88,
    "docstring only": 0.95,
    "solution only": 0.75,
    "tests only": 0.95,
}


@real
def test_real_problems_are_found(real_problems: list[Problem], real_index: Index) -> None:
    found: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for problem in real_problems[::6]:
        for way, plant in planting.WAYS.items():
            if (text := plant(problem)) is not None:
                found[problem.benchmark, way].append(bool(overlap(text, real_index)))
    assert len(found) == 5 * len(planting.WAYS) - 2  # no docstrings in one, no solutions in another
    recall = {key: sum(hits) / len(hits) for key, hits in found.items()}
    assert recall.pop(("cruxeval", "tests only")) < 0.2  # a call and a value, too little to know
    assert {key: share for key, share in recall.items() if share < FLOORS[key[1]]} == {}


@real
def test_the_standard_library_is_left_alone(real_index: Index) -> None:
    texts = standard_library.texts()
    hits = {
        path: found for path, text in texts.items() if (found := decontamination.overlap(real_index, text, "Python"))
    }
    # What there is are functions of three lines that really are an answer with other names.
    assert len(hits) <= 0.005 * len(texts)
    assert all(found.endswith(("renamed", "renamed, exact")) for found in hits.values())
