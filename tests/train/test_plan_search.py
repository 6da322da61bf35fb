"""What is tried, and what is taken: with a compiler whose answers are known."""

import dataclasses
from typing import Any

import pytest

from codelm.config import Config, DataConfig, MeshConfig, ModelConfig, TokenizerConfig, TrainConfig, mesh_shape, resolve
from codelm.hardware import CHIPS
from train import plan_search
from train.plan_search import fitting, search
from train.planning import Estimate, Plan, finished
from train.topologies import Topology

KEEPS = {"none": 64e9, "matmuls": 24e9, "full": 6e9}  # bytes of activations on four chips, in one part
TAKES = {"none": 1.0, "matmuls": 1.1, "full": 1.3}
TOPOLOGY = Topology("v5e:2x2", (2, 2), 1, CHIPS["TPU v5 lite"], [object()] * 4)


def config(remat: Any = "none", **train: Any) -> Config:
    model = ModelConfig(depth=2, width=64, heads=4, kv_heads=4, head_dim=16, mlp_width=96, remat=remat)
    told = Config(
        model=model,
        tokenizer=TokenizerConfig(vocab_size=512),
        data=DataConfig(seq_len=32, batch_size=64),
        train=TrainConfig(**train),
        mesh=MeshConfig(data=1, fsdp=-1),
    )
    return resolve(told)


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    asked: list[tuple[str, int]] = []

    def plan(config: Config, stage: str, topology: Topology) -> Plan:
        remat, parts = config.model.remat, config.train.accumulate
        asked.append((remat, parts))
        size = 2e9
        peak = size + KEEPS[remat] / parts
        tensor = config.mesh.tensor
        seconds = {"compute": TAKES[remat] + 0.01 * parts + tensor, "memory": 0.1, "collectives": 0.1}
        fits, memory = peak <= topology.chip.memory, {"parameters": size / 2, "optimizer": size / 2}
        estimate = Estimate("compiled", fits, peak, memory, 1.0, seconds, {}, {})
        return finished(config, stage, topology.name, mesh_shape(config, 4), topology.chip, estimate)

    monkeypatch.setattr(plan_search, "plan", plan)
    return asked


def stage(config: Config) -> Config:
    return config


def test_the_first_change_is_to_recompute_then_as_many_parts_as_it_takes(tried: list[tuple[str, int]]) -> None:
    given = config()
    found = plan_search.plan(given, "pretrain", TOPOLOGY)
    better = fitting(given, stage, "pretrain", TOPOLOGY, found, print)
    assert better is not None
    assert better.way.told(given) == "--model.remat full"
    given = config("full", accumulate=1)
    too_large = dataclasses.replace(plan_search.plan(given, "pretrain", TOPOLOGY), fits=False)
    split = {**too_large.hbm_split, "activations": 40e9}
    better = fitting(given, stage, "pretrain", TOPOLOGY, dataclasses.replace(too_large, hbm_split=split), print)
    assert better is not None
    assert better.way.told(given) == "--train.accumulate 4"  # 14.9 GB of room for 40


def test_where_nothing_helps_nothing_is_said(tried: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KEEPS, "full", 1e15)
    found = plan_search.plan(config(), "pretrain", TOPOLOGY)
    assert fitting(config(), stage, "pretrain", TOPOLOGY, found, print) is None
    assert max(parts for _, parts in tried) <= 16


def test_a_search_ranks_what_fits(tried: list[tuple[str, int]]) -> None:
    found = search(config("full"), stage, "pretrain", TOPOLOGY, print)
    best = found[0]
    assert best.way.told(config("full")) == "--model.remat none --train.accumulate 8"
    assert "--model.remat matmuls --train.accumulate 2" in [each.way.told(config("full")) for each in found]
    steps = [each.plan.step_seconds for each in found]
    assert steps == sorted(steps)
    assert all(each.plan.fits for each in found)
    assert {(each.way.mesh.data, each.way.mesh.tensor) for each in found} == {(1, 1), (1, 2), (1, 4), (2, 1), (4, 1)}
    assert ("none", 4) not in tried  # too large, as the first answer says
