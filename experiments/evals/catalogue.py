"""The suites by name, each made only when it is asked for."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from codelm.caches import CACHE
from codelm.errors import UserError, nearest
from experiments.evals.suite import Suite


@dataclass(frozen=True)
class Data:
    """Where suites find what they are made of."""

    benchmarks: Path | None = None
    """A folder of benchmark files; None = the environment's, the cache, or from where they are published."""
    given: str = ""
    """What follows the suite's name and a colon: a file or a folder."""
    run: Path | None = None
    """The run that is measured, where it is one: its corpus is what a suite on held-out text reads."""
    cache: Path = CACHE


# name → (module:function, what it measures). A function takes Data and returns a Suite.
SUITES: dict[str, tuple[str, str]] = {
    "humaneval": ("experiments.evals.humaneval:humaneval", "functions from signature and docstring, by execution"),
    "humaneval-plus": ("experiments.evals.humaneval:humaneval_plus", "… with some 80 times as many tests"),
    "mbpp": ("experiments.evals.mbpp:mbpp", "short programs from a description and one test, by execution"),
    "mbpp-plus": ("experiments.evals.mbpp:mbpp_plus", "… with some 35 times as many tests"),
    "cruxeval-output": ("experiments.evals.cruxeval:cruxeval_output", "what a function gives for an input"),
    "cruxeval-input": ("experiments.evals.cruxeval:cruxeval_input", "an input for which a function gives an output"),
    "infill-single": ("experiments.evals.infilling:infill_single", "a missing line of a function, by execution"),
    "infill-multi": ("experiments.evals.infilling:infill_multi", "… several lines"),
    "infill-random": ("experiments.evals.infilling:infill_random", "… any span, which may begin within a word"),
    "infill-light": ("experiments.evals.infilling:infill_light", "… a tenth as many"),
    "multipl-e": ("experiments.evals.other_languages:multipl_e", "MultiPL-E's file of a language: multipl-e:FILE"),
    "humaneval-x": ("experiments.evals.other_languages:humaneval_x", "HumanEval-X's: humaneval-x:FILE"),
    "bits-per-byte": ("experiments.evals.likelihood:bits_per_byte", "of held-out files, or of bits-per-byte:FOLDER"),
    "loss-by-position": ("experiments.evals.likelihood:loss_by_position", "… by how far into a document; also :FOLDER"),
    "needle": ("experiments.evals.retrieval:needle", "a constant in 1K to 128K tokens, or needle:1024+4096"),
    "variables": ("experiments.evals.retrieval:variables", "… a value that goes from name to name"),
    "typing": ("experiments.evals.serving_trace:typing", "latency, and what would be accepted, while typing"),
    "canary": ("experiments.evals.memorisation:canary", "strings planted in training, written again: canary:FILE"),
    "verbatim": ("experiments.evals.memorisation:verbatim", "training text where held-out files are gone on with"),
    "secrets": ("experiments.evals.memorisation:secrets_written", "strings like secrets where one is to be expected"),
    "insecure": ("experiments.evals.insecure_patterns:insecure", "well-known weaknesses where one is tempting"),
    "safim": ("experiments.evals.safim:safim", "SAFIM's blocks, conditions or API calls, by execution: safim:FILE"),
    "crosscodeeval": (
        "experiments.evals.published_infilling:crosscodeeval",
        "statements that use other files: crosscodeeval:FILE",
    ),
    "repobench": ("experiments.evals.published_infilling:repobench", "next lines of repositories: repobench:FILE"),
    "repository": (
        "experiments.evals.repository_suite:repository",
        "holes in held-out repositories: repository:FOLDER of `codelm eval build-suite`",
    ),
    "repository-nocontext": (
        "experiments.evals.repository_suite:repository_without_context",
        "… without other files of the repository",
    ),
    "backtest": (
        "experiments.evals.repository_suite:backtest",
        "lines of random held-out files, or of backtest:FOLDER, where a product would be asked",
    ),
}


def make(spec: str, data: Data) -> Suite:
    """Of a name, or NAME:FILE."""
    check(spec)
    name, _, given = spec.partition(":")
    module, function = SUITES[name][0].split(":")
    build: Callable[[Data], Suite] = getattr(importlib.import_module(module), function)
    return build(Data(data.benchmarks, given, data.run, data.cache))


def check(spec: str) -> None:
    """Refuse a suite that is not there, before anything is made."""
    name = spec.partition(":")[0]
    if name not in SUITES:
        raise UserError(f"no suite {name!r}; nearest: {nearest(name, list(SUITES))}. `codelm eval --help` lists them")


def part(suite: Suite, most: int) -> Suite:
    """The first so many tasks; 0 = all."""
    return replace(suite, tasks=suite.tasks[:most]) if most else suite
