"""The algebra gives the points that loops would give, with names that last, and refuses what cannot run."""

import dataclasses
import re
from pathlib import Path

import pytest

from codelm.commandline import parse_with_config
from codelm.config import Config, field_paths, resolve
from codelm.config_command import ShowOptions
from codelm.errors import UserError
from experiments import sweeps
from experiments.sweeps import Points, Sweep, chain, named, over, planned, product, zipped

QUICKSTART = "configs/quickstart.py"


def settings(points: Points) -> list[dict]:
    return [dict(point.overrides) for point in points]


def names(points: Points) -> list[str]:
    return [run.name.removeprefix("quickstart-") for run in planned(Sweep(QUICKSTART, points))]


def test_algebra_is_loops() -> None:
    rates, depths, steps = over("train.learning_rate", 1e-3, 2e-3), over("model.depth", 2, 4), over("train.steps", 9, 8)
    assert settings(product(rates, depths)) == [
        {"train.learning_rate": rate, "model.depth": depth} for rate in (1e-3, 2e-3) for depth in (2, 4)
    ]
    pairs = [{"model.depth": 2, "train.steps": 9}, {"model.depth": 4, "train.steps": 8}]
    assert settings(zipped(depths, steps)) == pairs
    assert settings(product(rates, zipped(depths, steps))) == [
        {"train.learning_rate": rate} | pair for rate in (1e-3, 2e-3) for pair in pairs
    ]
    assert settings(chain(depths, named("both", {"seed": 3, "train.steps": 7}))) == [
        {"model.depth": 2},
        {"model.depth": 4},
        {"seed": 3, "train.steps": 7},
    ]


def test_every_run_is_the_config_with_what_its_point_sets() -> None:
    runs = planned(Sweep(QUICKSTART, product(over("model.depth", 2, 6), over("data.seq_len", 128))))
    assert [(run.config.model.depth, run.config.model.width) for run in runs] == [(2, 128), (6, 384)]
    assert {run.config.data.seq_len for run in runs} == {128}
    assert {run.config.train.learning_rate for run in runs} == {2e-3}
    assert [run.config.name for run in runs] == [run.name for run in runs]


def test_names_say_what_differs() -> None:
    rates = over("train.learning_rate", 0.002, 1e-5, 1)
    assert names(rates) == ["learning_rate=0.002", "learning_rate=1e-05", "learning_rate=1"]
    assert names(over("midtrain.learning_rate", 0.5)) == ["midtrain.learning_rate=0.5"]
    assert names(over("corpus.languages", ["Python", "C++"], [])) == ["languages=Python,C++", "languages="]
    assert names(over("corpus.opt_out", "a b/c")) == ["opt_out=a_b_c"]
    assert names(product(named("small", {"model.depth": 2}), over("seed", 1))) == ["small-seed=1"]
    assert names(over("train.beta2", 0.95, 0.95000001)) == ["beta2=0.95", "beta2=0.95000001"]


def test_zipped_points_are_called_after_what_tells_them_apart() -> None:
    assert names(zipped(over("model.depth", 2, 4), over("train.steps", 20, 10))) == ["depth=2", "depth=4"]
    both = zipped(over("model.depth", 2, 2), over("train.steps", 20, 10), over("seed", 1, 2))
    assert names(both) == ["depth=2-steps=20", "depth=2-steps=10"]


def test_no_two_fields_share_a_label() -> None:
    paths = field_paths(Config)
    labels = [sweeps.label(path) for path in paths]
    assert len(set(labels)) == len(paths)
    assert all(f".{path}".endswith(f".{label}") for path, label in zip(paths, labels, strict=True))


@pytest.mark.parametrize(
    ("points", "said"),
    [
        (over("train.learning_rat", 1.0), "no field 'train.learning_rat'; nearest: 'train.learning_rate'"),
        (over("model.rope", 1.0), "no field 'model.rope'"),
        (over("train.steps", "100"), "train.steps takes an integer, not '100'"),
        (over("train.steps", [100, 200]), r"train.steps takes an integer, not \(100, 200\)"),
        (over("model.depth", 2, 0), "quickstart-depth=0: model.depth must be at least 1"),
        (over("name", "x"), "the sweep names its runs"),
        (over("seed", 1, 1), "two runs are called quickstart-seed=1: the same point twice"),
        (chain(named("a", {"seed": 1}), named("a", {"seed": 2})), "two runs are called quickstart-a: give one a name"),
        (over("corpus.opt_out", "a b", "a/b"), "two runs are called quickstart-opt_out=a_b"),
        ((), "a sweep without points"),
        (product(over("seed", 1), over("model.depth")), "a sweep without points"),
        (named("a/b", {}), "'quickstart-a/b' is no name of a folder"),
        (over("corpus.opt_out", "x" * 300), "characters long: give the point a name by named"),
        (named("m", {"midtrain.steps": 5, "midtrain.batch_size": 3, "mesh.data": 2}), "mesh.data=2 does not divide"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(points: Points, said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        planned(Sweep(QUICKSTART, points))
    assert "\n" not in str(refused.value)


def test_a_field_is_set_once_in_a_point() -> None:
    with pytest.raises(UserError, match=r"train.steps is set twice in one point, to 10 and to 20"):
        product(named("short", {"train.steps": 10}), over("train.steps", 20))
    assert settings(product(named("short", {"seed": 1}), over("seed", 1))) == [{"seed": 1}]


def test_unequal_zips_are_refused() -> None:
    with pytest.raises(UserError, match="zipped takes as many points of each, not 2, 3: see product"):
        zipped(over("seed", 1, 2), over("model.depth", 1, 2, 3))


def test_the_command_line_takes_every_kind_of_value() -> None:
    points = product(
        named("a", {"mesh.data": -1, "model.tied_embeddings": False, "tokenizer.path": "", "corpus.opt_out": "--x y"}),
        over("corpus.languages", ["Python", "Java"], []),
        over("data.sources.0.weight", [2]),
        over("train.weight_decay", 1e-7),
    )
    for run in planned(Sweep(QUICKSTART, points)):
        argv = sweeps.arguments((("name", run.name), *run.overrides))
        assert resolve(parse_with_config(ShowOptions, [run.file, *argv], "x").config) == run.config
        assert run.config.data.sources[0].weight == (2.0,)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("def config(): pass", r"does not define `def sweep\(\) -> Sweep`"),
        ("def sweep(): return 3", r"sweep\(\) returned int, not experiments.sweeps.Sweep"),
        ("def sweep():\n    return 1 / 0", r"s.py:2: ZeroDivisionError"),
        ("def sweep(:", r"s.py:1: SyntaxError"),
        (
            "from experiments.sweeps import *\ndef sweep(): return zipped(over('a', 1), over('b'))",
            r"s.py: zipped takes",
        ),
    ],
)
def test_a_file_without_a_sweep_is_refused(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(content)
    with pytest.raises(UserError, match=said) as refused:
        sweeps.load(tmp_path / "s.py")
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match="no sweep at"):
        sweeps.load(tmp_path / "none.py")


def test_the_example_of_the_docstring_is_true(tmp_path: Path) -> None:
    code = re.sub(r"^    ", "", sweeps.__doc__.split("functions.\n\n")[1].split("\n\n`codelm")[0], flags=re.M)
    (tmp_path / "s.py").write_text(code)
    runs = planned(sweeps.load(tmp_path / "s.py"))
    assert len(runs) == 7
    assert runs[0].name == "quickstart-depth=2-learning_rate=0.001"
    assert runs[-1].name == "quickstart-muon"
    assert dataclasses.replace(runs[-1].config, name="quickstart", train=runs[0].config.train).train.steps == 200
