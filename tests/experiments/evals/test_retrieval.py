"""What is asked for is in the text once, where it is said to be, in a text as long as is said; who reads finds it."""

import re
from pathlib import Path

import pytest

from codelm.errors import UserError
from experiments.evals import harness, retrieval
from experiments.evals.catalogue import Data, make
from experiments.evals.rows import Measured
from experiments.evals.suite import Prompt, Suite, Task
from experiments.evals.targets import Decoding
from tests.experiments.evals.fakes import Says

SUITES = ["needle", "variables"]


def suite(name: str, given: str = "512+1024+4096") -> Suite:
    return make(f"{name}:{given}", Data())


def reads(prompt: Prompt, decoding: Decoding) -> str:
    """Goes from name to name, as a program would."""
    values = dict(re.findall(r"^(\w+) = (\w+)$", prompt.prefix, re.MULTILINE))
    name = prompt.prefix.rpartition("assert ")[2].removesuffix(" ==")
    while name in values:
        name = values[name]
    return f" {name}\n\nassert"


def first_number(prompt: Prompt, decoding: Decoding) -> str:
    return re.findall(r"\d{5}", prompt.prefix)[0]


def last_number(prompt: Prompt, decoding: Decoding) -> str:
    return re.findall(r"\d{5}", prompt.prefix)[-1]


def measured(suite: Suite, target: Says, folder: Path) -> Measured:
    return harness.measure(suite, target, harness.Settings(), folder, None)


@pytest.mark.parametrize("name", SUITES)
def test_who_reads_finds_all_and_who_does_not_nothing(name: str, tmp_path: Path) -> None:
    found = [
        measured(suite(name), Says(answer), tmp_path / answer.__name__).result["figures"]["exact"]["value"]
        for answer in (reads, first_number, last_number)
    ]
    assert found == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("name", SUITES)
def test_the_value_stands_in_the_text_once_and_is_not_the_only_one(name: str) -> None:
    for task in suite(name).tasks:
        assert task.prompt.prefix.count(task.reference) == 1
        values = re.findall(r"^\w+ = (\d{5})$", task.prompt.prefix, re.MULTILINE)
        assert len(set(values)) == len(values) == 4


@pytest.mark.parametrize("name", SUITES)
def test_texts_have_the_length_that_is_promised(name: str) -> None:
    for task in suite(name, "512+1024+4096+131072").tasks:
        most = retrieval.CHARACTERS * (task.checks["length"] - 64)
        assert most - 60 <= len(task.prompt.prefix) <= most


def place(task: Task) -> float:
    return 100 * task.prompt.prefix.index(task.reference) / len(task.prompt.prefix)


@pytest.mark.parametrize("name", SUITES)
def test_the_value_stands_as_deep_as_is_promised(name: str) -> None:
    for task in suite(name, "8192").tasks:
        assert place(task) == pytest.approx(int(task.slices["depth"].removesuffix("%")), abs=4)


def test_a_value_goes_from_name_to_name_down_to_the_one_that_is_asked_for() -> None:
    for task in suite("variables", "1024").tasks:
        lines = task.prompt.prefix.split("\n")
        name, hops = task.prompt.prefix.rpartition("assert ")[2].removesuffix(" =="), 0
        at = len(lines)
        while name != task.reference:
            [(at, name)] = [
                (n, line.split(" = ")[1]) for n, line in enumerate(lines[:at]) if line.startswith(f"{name} =")
            ]
            hops += 1
        assert hops == 1 + retrieval.HOPS


@pytest.mark.parametrize(
    ("written", "score"),
    [(" {}", 1), ("{}\nassert x", 1), ("{}, 'no'", 1), (" {}0", 0), ("\n{}", 0), (" x == {}", 0), ("", 0), (" 1{}", 0)],
)
def test_the_answer_is_the_number_that_the_line_goes_on_with(written: str, score: int, tmp_path: Path) -> None:
    tasks = suite("needle", "512")
    values = {task.prompt.prefix: task.reference for task in tasks.tasks}
    said = Says(lambda prompt, decoding: written.replace("{}", values[prompt.prefix]))
    assert {row.scores["exact"] for row in measured(tasks, said, tmp_path).rows} == {score}


def test_what_is_longer_than_the_context_is_not_run(tmp_path: Path) -> None:
    said = Says(reads, context=1024)
    found = measured(suite("needle", "512+1024+1025"), said, tmp_path)
    assert {row.slices["length"].strip() for row in found.rows if row.counts} == {"512", "1024"}
    assert found.result["figures"]["exact"]["value"] == 1.0
    assert len(said.asked) == 2 * len(retrieval.DEPTHS) * retrieval.EACH


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_the_same_every_time_and_no_two_of_its_texts_are(name: str) -> None:
    one, two = suite(name), suite(name)
    assert one.tasks == two.tasks
    assert one.source == two.source
    assert len({task.prompt.prefix for task in one.tasks}) == len(one.tasks)


@pytest.mark.parametrize("given", ["many", "1024+", "100", "512,1024"])
def test_lengths_that_are_none_are_refused(given: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"needle:{given}")):
        suite("needle", given)
