"""Exactly the tasks that a corpus holds are found in it, however changed, and figures are told with and without."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from codelm.errors import UserError
from data import build, dataset, decontamination
from data.benchmarks import Problem
from experiments import planting
from experiments.evals import contamination, statistics
from experiments.evals.contamination import Contamination, check
from experiments.evals.rows import Row
from experiments.evals.suite import AS_IS, Outcome, Prompt, Suite, Task
from tests.data import batches
from tests.data.building import corpus_config, settings
from tests.data.made_corpus import module

QUESTIONS = {
    "kettle": "Turn every kettle lid as often as asked unless it is stuck, and tell which lids went round twice.",
    "loom": "Of the threads on a loom give the widest that is neither dyed nor torn, or nothing where all are.",
    "ferry": "Load carts onto a ferry in order of arrival until the next one would sink it, and count the trips.",
    "orchard": "Share apples among baskets so that no basket holds two more than any other, largest basket first.",
    "mason": "Lay bricks in rows, each shifted by half a brick against the row below, and list where the gaps are.",
    "miller": "Grind sacks of grain while the stream is high; what is left waits for rain until the mill closes.",
    "cooper": "Cut staves from planks, the longest first, and say how many barrels of that height come out of them.",
}
ANSWERS = {
    "kettle": """\
    often = []
    for place, lid in enumerate(first):
        if lid and place not in second:
            often.append((place, lid * 45 % 360))
    return sorted(often, key=len)
""",
    "loom": """\
    best = None
    for thread in first:
        if thread[1] not in second and (best is None or best < thread):
            best = thread
    return best or ()
""",
    "ferry": """\
    trips, weight = 0, 0
    while first:
        weight += first.pop(0)
        if weight > second:
            trips, weight = trips + 1, 0
    return trips
""",
    "orchard": """\
    shares = [0] * second
    for apple in range(first):
        shares[apple % second] += 1
    assert sum(shares) == first
    return shares[::-1]
""",
    "mason": """\
    gaps = set()
    for row in range(first):
        start = 0.5 if row & 1 else 0
        gaps |= {(row, start + brick) for brick in range(second)}
    return gaps
""",
    "miller": """\
    left = first[:]
    for level in second:
        if level >= 3 and left:
            del left[-1]
        elif not left:
            break
    return len(left)
""",
    "cooper": """\
    staves = 0
    for plank in reversed(sorted(first)):
        staves += plank // second
    return divmod(staves, 24)[0]
""",
}


def task(name: str) -> Task:
    prompt = f'def {name}(first, second):\n    """{QUESTIONS[name]}"""\n'
    test = (
        f"assert {name}([7, 1, 4], 3) == {len(name)} and {name}([], 9) is not {name}([2], 8), 'the {name} went wrong'"
    )
    return Task(f"crafts/{name}", Prompt(prompt), ANSWERS[name], {"half": "a"}, {"test": test})


def suite(*tasks: Task) -> Suite:
    about = "a suite of crafts"
    return Suite("crafts", 1, about, tasks, lambda task, tools: Outcome("", {}), {"pass": "passes"}, "0" * 64, AS_IS)


SUITE = suite(*map(task, QUESTIONS))
ABSENT = ("miller", "cooper")


def planted(name: str) -> str:
    """What the corpus holds of a task: each in another way."""
    one = task(name)
    problem = Problem("", "", one.prompt.prefix + one.reference, one.prompt.prefix, one.reference, one.checks["test"])
    way = {
        "kettle": planting.verbatim,
        "loom": planting.renamed,
        "ferry": planting.reformatted,
        "orchard": planting.docstring_only,
        "mason": planting.tests_only,
    }[name]
    return way(problem) or ""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks in one file, the others in files of their own, among ordinary ones."""
    rows = [{"repo_name": "owner/clean", "path": f"{n}.py", "content": module(n)} for n in range(20)]
    for n, names in enumerate([("kettle", "loom"), ("ferry",), ("orchard",), ("mason",)]):
        text = "\n\n".join(map(planted, names))
        rows.append({"repo_name": f"owner/{n}", "path": "some.py", "content": planting.planted(module(100 + n), text)})
    return batches.build_corpus(tmp_path_factory.mktemp("contaminated"), "corpus", rows)


@pytest.fixture(scope="module")
def found(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Contamination:
    return check(SUITE, corpus, tmp_path_factory.mktemp("cache"), workers=1)


def test_exactly_the_planted_tasks_are_found(found: Contamination) -> None:
    assert found.where == {
        "crafts/kettle": "owner/0 some.py: 13-gram",
        "crafts/loom": "owner/0 some.py: renamed",
        "crafts/ferry": "owner/1 some.py: 13-gram",
        "crafts/orchard": "owner/2 some.py: 13-gram",
        "crafts/mason": "owner/3 some.py: 13-gram",
    }
    assert found.share == 5 / 7
    assert found.unfindable == 0


def test_the_result_says_how_it_was_looked_for(found: Contamination, corpus: Path) -> None:
    header = json.loads(json.dumps(found.header()))
    assert header == header | {
        "status": "checked",
        "corpus": dataset.load(corpus).manifest["digest"],
        "documents": 24,
        "decontaminated": {"against": "", "dropped": 0},
        "tasks": 7,
        "share": 5 / 7,
        "overlapping": [one.id for one in SUITE.tasks if one.id.split("/")[1] not in ABSENT],
    }
    assert "13 words in a row" in header["method"]


def test_it_is_the_same_however_the_corpus_is_cut(
    found: Contamination, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contamination, "_PART_BYTES", 1)
    assert check(SUITE, corpus, tmp_path, workers=1) == found
    assert len(list(tmp_path.glob("**/*.json"))) == 24


def test_what_was_looked_at_is_not_looked_at_again(
    found: Contamination, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contamination, "_PART_BYTES", 5_000)
    looked, real = [], decontamination.overlap

    def overlap(index: decontamination.Index, text: str, language: str) -> str:
        looked.append(text)
        if len(looked) == 16:
            raise KeyboardInterrupt
        return real(index, text, language)

    monkeypatch.setattr(decontamination, "overlap", overlap)
    with pytest.raises(KeyboardInterrupt):
        check(SUITE, corpus, tmp_path, workers=1)
    assert check(SUITE, corpus, tmp_path, workers=1) == found
    again = len(looked) - len(set(looked))
    assert check(SUITE, corpus, tmp_path, workers=1) == found
    assert len(looked) - len(set(looked)) == again
    assert again <= 10  # of the part that was interrupted, and of files in which something was found
    fewer = suite(*SUITE.tasks[1:])
    assert check(fewer, corpus, tmp_path, workers=1).tasks == 6  # other tasks are another question


def test_holes_in_one_program_or_file_are_found_together(corpus: Path, tmp_path: Path) -> None:
    program = task("kettle").prompt.prefix + ANSWERS["kettle"]
    cuts = [(30, 50), (120, 140), (200, 230)]
    same_program = [Task(f"same/{a}", Prompt(program[:a], program[b:]), program[a:b]) for a, b in cuts]
    other = module(7_000, functions=30)
    text = f"{other}\n\n{program}\n\n{other[::-1]}"
    windows = [(0, 900), (len(other) - 300, len(other) + 600), (len(other) + 700, len(text))]
    same_file = [
        Task(f"file/{a}", Prompt(text[a : a + 99], text[a + 120 : b], "a.py", (), "me"), text[a + 99 : a + 120])
        for a, b in windows
    ]
    absent = Task("absent", Prompt(text[:200], text[220:900], "b.py", (), "me"), text[200:220])
    found = check(suite(*same_program, *same_file, absent), corpus, tmp_path, workers=1)
    assert set(found.overlapping) == {one.id for one in (*same_program, *same_file)}


def test_a_program_among_the_checks_is_looked_for_by_itself(corpus: Path, tmp_path: Path) -> None:
    """A task may be to say what a call of it gives, and the call may be longer than the program."""

    def asked(name: str) -> Task:
        program = f"def {name}(first, second):\n{ANSWERS[name]}"
        call = f"assert {name}({', '.join(f'{name[n % 5 :]}{n} + {n}' for n in range(40))}) == "
        return Task(name, Prompt(f"{program}\n{call}"), "3", checks={"code": program})

    found = check(suite(*map(asked, QUESTIONS)), corpus, tmp_path, workers=1)
    assert found.overlapping == ("kettle", "loom", "ferry")


def test_tasks_that_cannot_be_found_are_counted(corpus: Path, tmp_path: Path) -> None:
    short = [Task(f"short/{n}", Prompt(f"{n} + {n} ="), str(2 * n)) for n in range(3)]
    found = check(suite(*SUITE.tasks, *short), corpus, tmp_path, workers=1)
    assert (found.tasks, found.unfindable, len(found.where)) == (10, 3, 5)


def test_a_part_travels_to_another_process(corpus: Path, tmp_path: Path) -> None:
    index = decontamination.build([Problem("crafts", "k", task("kettle").prompt.prefix + ANSWERS["kettle"])])
    [part] = contamination._parts(dataset.load(corpus), index, tmp_path, [])
    contamination._look(pickle.loads(pickle.dumps(part)))
    assert json.loads(part.out.read_text()) == {"crafts k": "owner/0 some.py: 13-gram"}


def test_a_corpus_that_was_decontaminated_says_so(tmp_path: Path) -> None:
    home = tmp_path / "code" / "repo"
    home.mkdir(parents=True)
    (home / "a.py").write_text(module(1))
    (home / "b.py").write_text(planting.planted(module(2), planted("kettle")))
    (tmp_path / "crafts").mkdir()
    row = {"task_id": "k", "prompt": task("kettle").prompt.prefix, "canonical_solution": ANSWERS["kettle"]}
    (tmp_path / "crafts" / "crafts.jsonl").write_text(json.dumps(row) + "\n")
    config = replace(corpus_config(f"repositories:{tmp_path / 'code'}"), skip=("licence",), validation=0.0)
    build.build(config, settings(tmp_path / "corpus", benchmarks=str(tmp_path / "crafts")))
    found = check(SUITE, tmp_path / "corpus", tmp_path / "cache", workers=1)
    assert found.decontaminated == {"against": "crafts", "dropped": 1}
    assert found.overlapping == ()


def test_no_corpus_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no corpus at"):
        check(SUITE, tmp_path, tmp_path)


def test_figures_are_told_with_and_without() -> None:
    scores = {"a": 1.0, "b": 0.0, "c": 1.0, "d": 0.0}
    rows = [Row(name, 0, 0, ("",), "", {"pass": score}) for name, score in scores.items()]
    rows.append(Row("e", 0, 0, ("",), "", {"pass": 0.0}, "not run: no compiler"))
    found = contamination.with_and_without(rows, {"pass": "passes"}, [1], ["a", "b", "c", "e"])
    assert {name: (one["pass@1"].value, one["pass@1"].tasks) for name, one in found.items()} == {
        "all": (0.5, 4),
        "clean": (0.0, 1),
        "overlapping": (pytest.approx(2 / 3), 3),
    }
    assert found["clean"] == statistics.figures(rows[3:4], {"pass": "passes"}, [1])
    assert contamination.with_and_without(rows, {"pass": "passes"}, [1], [])["overlapping"] == {}


def test_of_several_corpora_a_task_overlaps_where_it_does_in_one(found: Contamination) -> None:
    other = replace(found, corpus="other", where={"crafts/cooper": "owner/9 some.py: exact"})
    header = json.loads(json.dumps(contamination.joined([found, other])))
    assert header["overlapping"] == sorted([*found.overlapping, "crafts/cooper"])
    assert header["share"] == 6 / 7
    assert [each["corpus"] for each in header["corpora"]] == [found.corpus, "other"]
    assert contamination.joined([found]) == found.header()
