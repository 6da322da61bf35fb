"""Every shipped config fits the topology it names. The figures are golden; that they are of this very program is told
without compiling it again, and the slow tests compile it again (pytest -m slow tests/train/test_plans.py)."""

import importlib.metadata
import importlib.util

import pytest

from tests.conftest import ROOT
from tests.golden import make_plans
from tests.golden.make_configs import shipped
from train.topologies import Gpus, parse

CLUSTERS = make_plans.clusters()
HERE = importlib.util.find_spec("libtpu") is not None
needs_libtpu = pytest.mark.skipif(not HERE, reason="libtpu compiles for TPUs: the extra tpu")


def test_every_config_names_its_cluster() -> None:
    assert {path.stem for path in shipped()} - CLUSTERS.keys() == {"quickstart"}
    assert {path.stem for path in make_plans.GOLDEN.glob("*.json")} == CLUSTERS.keys()


# Rows of 128K take more than a minute to trace, those of 32K half of what all others take.
LONG = ("long_7b_32k", "long_7b_128k")
IN_CI = [pytest.param(name, marks=pytest.mark.slow) if name in LONG else name for name in CLUSTERS]


@pytest.mark.parametrize("name", IN_CI)
@needs_libtpu
def test_a_shipped_config_fits(name: str) -> None:
    path, topology, slices = CLUSTERS[name]
    golden, (config, stage) = make_plans.golden(name), make_plans.staged(path)
    cluster = parse(topology, slices)
    assert golden["fits"]
    assert golden["config"] == config.name
    assert golden["hbm_bytes_per_chip"] <= golden["hbm_limit"] == cluster.chip.memory
    assert golden["stage"] == stage
    if isinstance(cluster, Gpus):  # reckoned in no time
        assert golden | {"made_with": {}} == make_plans.made(path, topology, slices) | {"made_with": {}}
        return
    assert golden["topology"] == cluster.told
    if golden["made_with"]["jax"] != importlib.metadata.version("jax"):
        pytest.skip(f"planned with jax {golden['made_with']['jax']}, whose programs are others")
    assert golden["program"] == make_plans.program(config, cluster), "another program than planned: make plans"


@pytest.mark.slow
@pytest.mark.parametrize("name", CLUSTERS)
@needs_libtpu
def test_compiled_again_it_is_as_planned(name: str) -> None:
    golden, now = make_plans.golden(name), make_plans.made(*CLUSTERS[name])
    assert now["fits"]
    for figure in ("hbm_bytes_per_chip", "executed_flops_per_chip", "step_seconds", "predicted_mfu"):
        assert now[figure] == pytest.approx(golden[figure], rel=0.02), figure
    for kind, row in golden["collectives"].items():
        assert now["collectives"][kind]["bytes"] == pytest.approx(row["bytes"], rel=0.02), kind


def test_the_readme_shows_them() -> None:
    assert make_plans.table() in (ROOT / "README.md").read_text(), "the table of plans is another: make plans shows it"
