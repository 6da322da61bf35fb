"""Contract 1: frozen typed configs, dotted overrides, one-line errors, fingerprint, golden snapshots."""

import dataclasses
import json
import re
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any, Literal

import pytest

from codelm import cli, config_io
from codelm.config import (
    WHERE_IT_RUNS,
    Config,
    MeshConfig,
    ModelConfig,
    TrainConfig,
    checked,
    dial,
    field_paths,
    field_types,
    fingerprint,
    lookup,
    mesh_shape,
    resolve,
)
from codelm.data_config import SourceConfig
from codelm.errors import UserError
from tests.golden import make_configs

QUICKSTART = "configs/quickstart.py"


def override(config: Any, path: str, value: Any) -> Any:
    """The config with the value at a dotted path: by hand, not through the code under test."""
    name, _, rest = path.partition(".")
    return dataclasses.replace(config, **{name: override(getattr(config, name), rest, value) if rest else value})


def kind_of(path: str) -> Any:
    kind: Any = Config
    for name in path.split("."):
        kind = field_types(kind)[name]
    return kind


def another(path: str, value: Any) -> Any:
    """A different value of the field's own type."""
    kind = kind_of(path)
    if typing.get_origin(kind) is Literal:
        return next((choice for choice in typing.get_args(kind) if choice != value), value)
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        if item is SourceConfig:
            return (SourceConfig(corpus="other"), SourceConfig(level="repository"))
        return (3, 5) if item is int else ("other", "more") if item is str else tuple(reversed(typing.get_args(item)))
    return {bool: lambda: not value, int: lambda: value + 1, float: lambda: value + 0.25, str: lambda: "other"}[kind]()


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = cli.main(list(argv))
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line on stderr of a command that must exit 2 and print nothing else."""
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "")
    assert err.startswith("codelm: error: ")
    assert err.count("\n") == 1, err
    return err


# ---- overrides ----


FIELDS = [path for path in field_paths(Config) if path != "data.sources"]
AT_ONCE = 16  # making the parser is what takes time


@pytest.mark.parametrize("paths", [FIELDS[start::AT_ONCE] for start in range(AT_ONCE)], ids=lambda paths: paths[0])
def test_every_field_can_be_overridden_by_its_dotted_path(paths: list[str]) -> None:
    from codelm import commandline, config_command

    expected = base = config_io.load(QUICKSTART)
    argv = [QUICKSTART]
    for path in paths:
        value = another(path, lookup(base, path))
        argv += [f"--{path}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
        expected = override(expected, path, value)
    parsed = commandline.parse_with_config(config_command.ShowOptions, argv, "codelm config show")
    assert parsed.config == expected


@pytest.mark.parametrize(
    ("option", "words", "expected"),
    [
        ("corpus", ["DIR"], SourceConfig(corpus="DIR")),
        ("level", ["repository"], SourceConfig(level="repository")),
        ("weight", ["2", "0.5"], SourceConfig(weight=(2.0, 0.5))),
        ("languages", ["Go", "C"], SourceConfig(languages=("Go", "C"))),
    ],
)
def test_a_source_of_the_mixture_is_overridden_by_its_number(
    option: str, words: list[str], expected: SourceConfig
) -> None:
    from codelm import commandline, config_command

    argv = [QUICKSTART, f"--data.sources.0.{option}", *words]
    parsed = commandline.parse_with_config(config_command.ShowOptions, argv, "codelm config show")
    assert parsed.config == override(config_io.load(QUICKSTART), "data.sources", (expected,))


def test_overrides_reach_the_dial(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "config", "show", QUICKSTART, "--model.depth", "14", "--json")
    shown = json.loads(out)
    assert (shown["model"]["width"], shown["model"]["heads"]) == (896, 14)


def test_help_names_every_field_and_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["config", "show", QUICKSTART, "--help"])
    assert not stop.value.code
    out = capsys.readouterr().out
    assert [path for path in field_paths(Config) if f"--{path}" not in out] == []


def test_every_config_field_is_documented() -> None:
    files = {"corpus": "corpus_config.py", "data": "data_config.py"}
    files |= dict.fromkeys(("train", "midtrain", "evaluation", "checkpoint", "track"), "train_config.py")
    sources = [f"data.sources.{name}" for name in field_types(SourceConfig)]
    for path in [*field_paths(Config), *sources]:
        leaf = path.split(".")[-1]
        source = Path("codelm", files.get(path.split(".")[0], "config.py")).read_text()
        declaration = source.split(f"\n    {leaf}: ", 1)[1].split("\n", 2)
        assert declaration[1].strip().startswith('"""'), f"{path} has no docstring"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--model.dept", "3"], "--model.depth"),
        (["--model.detph=3"], "--model.depth"),
        (["--tran.steps", "3"], "--train.steps"),
        (["--jsn"], "--json"),
        (["--model.depth", "x"], "--model.depth"),
        (["--model.depth", "1.5"], "--model.depth"),
        (["--model.depth"], "--model.depth"),
        (["--model.tied_embeddings", "maybe"], "--model.tied_embeddings"),
        (["--corpus.dedup.level", "nowhere"], "--corpus.dedup.level"),
        (["--corpus.skip", "nowhere"], "--corpus.skip"),
        (["--corpus.languages", "Pyton"], "nearest: 'Python'"),
        (["--corpus.dedup.threshold", "1.5"], "corpus.dedup.threshold must be in (0, 1], not 1.5"),
        (["--corpus.validation", "2"], "corpus.validation must be between 0 and 1, not 2"),
        (["stray"], "stray"),
    ],
)
def test_a_wrong_name_type_or_value_is_one_line(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert said in refused(capsys, "config", "show", QUICKSTART, *argv)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.heads": 4, "model.kv_heads": 3}, "model.kv_heads=3"),
        ({"model.head_dim": 63}, "model.head_dim=63"),
        ({"model.depth": 0}, "model.depth"),
        ({"model.width": -5}, "model.width"),
        ({"model.vocab_size": 100}, "model.vocab_size=100"),
        ({"data.seq_len": 0}, "data.seq_len"),
        ({"data.batch_size": 0}, "data.batch_size"),
        ({"seed": -1}, "seed must be at least 0, not -1"),
        ({"data.fim.rate": 1.5}, "data.fim.rate must be between 0 and 1, not 1.5"),
        ({"data.fim.spm": -0.1}, "data.fim.spm"),
        ({"data.metadata": 2.0}, "data.metadata"),
        ({"data.fim.spans.characters": -1.0}, "data.fim.spans.characters"),
        ({"data.fim.spans.characters": 0.0}, "data.fim.spans are all 0"),
        ({"data.fim.causal_context": -1}, "data.fim.causal_context"),
        ({"data.temperature": 0.0}, "data.temperature"),
        ({"data.long_weight": 2.0}, "data.long_weight needs data.long_tokens"),
        ({"train.steps": 0}, "train.steps"),
        ({"train.learning_rate": -1.0}, "train.learning_rate"),
        ({"train.beta2": 1.0}, "train.beta2"),
        ({"train.decay_fraction": 1.5}, "train.decay_fraction"),
        ({"train.grad_clip": 0.0}, "train.grad_clip"),
        ({"mesh.context": 3}, "data.seq_len"),
        ({"mesh.tensor": 3}, "mesh.tensor=3"),
        ({"mesh.fsdp": 3}, "mesh.fsdp=3"),
        ({"mesh.data": 3}, "mesh.data=3"),
        ({"mesh.data": 0}, "mesh.data"),
        ({"mesh.fsdp": -1}, "mesh"),
        ({"mesh.expert": 2}, "model.moe.experts"),
        ({"model.rope.scaling": "yarn"}, "model.rope.original_seq_len"),
        ({"model.rope.factor": 0.5}, "model.rope.factor"),
        (
            {"model.rope.scaling": "llama3", "model.rope.original_seq_len": 64, "model.rope.low_freq_factor": 9.0},
            "freq",
        ),
        ({"model.full_attention_every": 2}, "model.sliding_window"),
        ({"model.sliding_window": -1}, "model.sliding_window"),
        ({"mesh.tensor": 2, "model.vocab_size": 4097}, "model.vocab_size"),
        (
            {"mesh.tensor": 2, "model.width": 129, "model.heads": 2, "model.kv_heads": 2, "model.mtp_heads": 1},
            "model.width=129",
        ),
        ({"model.moe.experts": 4, "model.moe.top_k": 5}, "model.moe.top_k=5"),
        ({"model.moe.experts": 4, "mesh.expert": 3}, "mesh.expert=3"),
        ({"model.moe.shared_experts": 1}, "model.moe.shared_experts"),
    ],
)
def test_impossible_combinations_are_refused(
    changes: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = [word for path, value in changes.items() for word in (f"--{path}", str(value))]
    assert said in refused(capsys, "config", "show", QUICKSTART, *argv)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.boundaries": (5, 5)}, "data.boundaries must be rising steps above 0"),
        ({"data.boundaries": (0, 5)}, "data.boundaries must be rising steps above 0"),
        ({"data.sources": ()}, "data.sources is empty"),
        ({"data.sources": (SourceConfig(weight=(1.0, 2.0)),)}, "data.sources.0.weight has 2 values"),
        ({"data.sources": (SourceConfig(weight=(-1.0,)),)}, "data.sources.0.weight must be a share of at least 0"),
        ({"data.sources": (SourceConfig(weight=(0.0,)),)}, "every weight in part 0 of the mixture is 0"),
        (
            {"data.boundaries": (9,), "data.sources": (SourceConfig(), SourceConfig("x", weight=(1.0, 1.0, 1.0)))},
            "data.sources.1.weight has 3 values, but data.boundaries cuts the run into 2",
        ),
        ({"data.sources": (SourceConfig(level="chat"),)}, "data.sources.0.level=chat needs data.sources.0.corpus"),
        ({"data.sources": (SourceConfig(languages=("Pyton",)),)}, "nearest: 'Python'"),
        ({"tokenizer.family": "codelma"}, "unknown model family 'codelma': did you mean codelm"),
    ],
)
def test_impossible_mixtures_are_refused(changes: dict[str, Any], said: str) -> None:
    config = config_io.load(QUICKSTART)
    for path, value in changes.items():
        config = override(config, path, value)
    with pytest.raises(UserError, match=re.escape(said)):
        resolve(config)


@pytest.mark.parametrize(
    ("mesh", "devices", "shape"),
    [
        (MeshConfig(), 8, (8, 1, 1)),
        (MeshConfig(data=1, fsdp=-1), 8, (1, 8, 1)),
        (MeshConfig(data=2, fsdp=2, tensor=2), 8, (2, 2, 2)),
        (MeshConfig(data=2), 2, (2, 1, 1)),
        (MeshConfig(data=2), 8, None),
        (MeshConfig(tensor=2), 5, None),
        (MeshConfig(data=2, fsdp=2, tensor=2), 4, None),
        (MeshConfig(), 32, None),  # more row shards than rows
    ],
)
def test_mesh_must_match_the_devices(
    mesh: MeshConfig, devices: int, shape: tuple[int, ...] | None, capsys: pytest.CaptureFixture[str]
) -> None:
    config = resolve(dataclasses.replace(config_io.load(QUICKSTART), mesh=mesh))
    argv = [f"--mesh.{axis}={size}" for axis, size in dataclasses.asdict(mesh).items()]
    if shape is None:
        with pytest.raises(UserError, match=r"devices|batch_size"):
            mesh_shape(config, devices)
        refused(capsys, "config", "show", QUICKSTART, *argv, "--devices", str(devices))
    else:
        sizes = mesh_shape(config, devices)
        assert (sizes["data"], sizes["fsdp"], sizes["tensor"]) == shape


# ---- files ----


HEAD = "from codelm.config import *\ndef config():\n    return "


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (HEAD + "Config(model=ModelConfig(dept=3))", ":3: ModelConfig has no field 'dept'; nearest: 'depth'"),
        (HEAD + "Config(model=ModelConfig(depth='3'))", "model.depth takes an integer, not '3'"),
        (HEAD + "Config(model=3)", "model takes a ModelConfig, not 3"),
        (HEAD + "Config(seed=True)", "seed takes an integer"),
        ("def config(:", ":1: SyntaxError"),
        ("x = 1", "def config()"),
        ("import nothere", ":1: ModuleNotFoundError"),
        ("def config():\n    return 3", "returned int"),
        ("def config():\n    raise ValueError", ":2: ValueError"),
    ],
)
def test_a_bad_config_file_is_one_line(
    source: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.py").write_text(source)
    assert said in refused(capsys, "config", "show", str(tmp_path / "bad.py"))


def test_a_missing_config_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "nearest: configs/quickstart.py" in refused(capsys, "config", "show", "configs/quikstart.py")
    assert "which config" in refused(capsys, "config", "show")
    assert "neither a Python file nor a JSON" in refused(capsys, "config", "show", "README.md")


@pytest.mark.parametrize("path", make_configs.shipped(), ids=lambda path: path.stem)
def test_json_out_and_in_is_the_same_config(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = resolve(config_io.load(path))
    assert config_io.from_json(config_io.to_json(config)) == config
    _, out, _ = run(capsys, "config", "show", str(path), "--json")
    (tmp_path / "shown.json").write_text(out)
    assert resolve(config_io.load(tmp_path / "shown.json")) == config


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["model"].update(dept=3), "model has no field 'dept'; nearest: 'depth'"),
        (lambda d: d.update(modle={}), "config has no field 'modle'; nearest: 'model'"),
        (lambda d: d.update(codelm_config=99), "version 99"),
        (lambda d: d.pop("codelm_config"), "codelm_config"),
        (lambda d: d.update(model=[1]), "model takes"),
        (lambda d: d["data"].update(seq_len="long"), "data.seq_len takes an integer"),
        (lambda d: d["corpus"]["dedup"].update(level="all"), "corpus.dedup.level takes one of file, repository"),
        (lambda d: d["corpus"].update(skip=["all"]), "corpus.skip takes a list, each one of opt_out, licence"),
        (lambda d: d["corpus"].update(sources="stdlib"), "corpus.sources takes a list, each text"),
    ],
)
def test_json_is_read_strictly(change: Any, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = config_io.to_dict(resolve(config_io.load(QUICKSTART)))
    change(content)
    (tmp_path / "c.json").write_text(json.dumps(content))
    assert said in refused(capsys, "config", "show", str(tmp_path / "c.json"))


def test_damaged_json_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.json").write_text('{"codelm_config": 1, ')
    assert "not JSON" in refused(capsys, "config", "show", str(tmp_path / "c.json"))


# ---- what a config is ----


def test_configs_are_frozen_all_the_way_down() -> None:
    def classes(cls: type) -> set[type]:
        nested = (kind for kind in field_types(cls).values() if dataclasses.is_dataclass(kind))
        return {cls}.union(*(classes(typing.cast(type, kind)) for kind in nested))

    assert len(classes(Config)) >= 8
    for cls in classes(Config):
        assert cls.__dataclass_params__.frozen, cls  # type: ignore[attr-defined]


CHOICES = [path for path in field_paths(Config) if len(typing.get_args(kind_of(path))) != 1]


@pytest.mark.parametrize("path", CHOICES)
def test_fingerprint_covers_what_changes_results_and_nothing_else(path: str) -> None:
    base = resolve(config_io.load(QUICKSTART))
    moved = fingerprint(override(base, path, another(path, lookup(base, path)))) != fingerprint(base)
    where_it_runs = any(f"{path}.".startswith(f"{field}.") for field in WHERE_IT_RUNS)
    assert moved == (not where_it_runs)


def test_fingerprint_is_the_same_in_another_process() -> None:
    code = f"from codelm import config as c, config_io as io; print(c.fingerprint(c.resolve(io.load('{QUICKSTART}'))))"
    command = [sys.executable, "-c", code]
    other = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "7"})
    assert other.stdout.strip() == fingerprint(resolve(config_io.load(QUICKSTART)))


def test_an_integer_where_a_number_is_meant_is_the_same_config() -> None:
    whole = resolve(Config(train=TrainConfig(grad_clip=1)))
    assert fingerprint(whole) == fingerprint(resolve(Config(train=TrainConfig(grad_clip=1.0))))
    assert isinstance(checked(whole, "", Config).train.grad_clip, float)


@pytest.mark.parametrize("path", make_configs.shipped(), ids=lambda path: path.stem)
def test_golden_snapshot(path: Path) -> None:
    """Red means this change moves the experiment: `make golden`, and say in the commit why."""
    assert make_configs.snapshot(path) == (make_configs.GOLDEN / f"{path.stem}.json").read_text()


def test_no_snapshot_without_a_config() -> None:
    assert {p.stem for p in make_configs.GOLDEN.glob("*.json")} == {p.stem for p in make_configs.shipped()}


@pytest.mark.parametrize("path", make_configs.shipped(), ids=lambda path: path.stem)
def test_config_files_say_what_they_are(path: Path) -> None:
    """The docstring gives the command, the cost and what to expect; the name is the file's."""
    doc = path.read_text().split('"""')[1]
    assert f"configs/{path.name}" in doc
    assert "Cost:" in doc
    assert "Expect:" in doc
    assert config_io.load(path).name.replace("-", "_") == path.stem


# ---- the dial ----


@pytest.mark.parametrize(
    ("depth", "width", "heads", "kv_heads", "head_dim", "mlp_width"),
    [
        (1, 128, 2, 1, 64, 384),
        (4, 256, 4, 2, 64, 768),
        (14, 896, 14, 2, 64, 2432),
        (18, 1280, 20, 4, 64, 3456),
        (28, 3072, 24, 8, 128, 8192),
        (32, 4096, 32, 8, 128, 11008),
    ],
)
def test_dial(depth: int, width: int, heads: int, kv_heads: int, head_dim: int, mlp_width: int) -> None:
    model = dial(ModelConfig(depth=depth), 4096)
    sizes = (model.width, model.heads, model.kv_heads, model.head_dim, model.mlp_width)
    assert sizes == (width, heads, kv_heads, head_dim, mlp_width)


def test_dial_gives_a_valid_model_at_every_depth_and_grows() -> None:
    sizes = [resolve(Config(model=ModelConfig(depth=depth))) for depth in range(1, 97)]
    widths = [config.model.width for config in sizes]
    rates = [config.train.learning_rate for config in sizes]
    assert widths == sorted(widths)
    assert rates == sorted(rates, reverse=True)
    assert resolve(Config(model=ModelConfig(width=768))).train.learning_rate == 6e-4


def test_the_dial_leaves_what_is_given() -> None:
    given = ModelConfig(depth=4, width=320, heads=5, kv_heads=5, head_dim=32, mlp_width=640, vocab_size=50_000)
    assert dial(given, 4096) == given
    assert resolve(Config(model=given, train=TrainConfig(learning_rate=1e-3))).train.learning_rate == 1e-3
