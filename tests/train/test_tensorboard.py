"""What TensorBoard's own reader finds in our files."""

from pathlib import Path

import pytest

from train.tensorboard import Events

loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def test_its_reader_finds_every_scalar(tmp_path: Path) -> None:
    written = {"loss": [(1, 9.5), (300, 2.25), (2**40, -1e-8)], "speed/tokens_per_second": [(300, 1e6)]}
    events = Events(tmp_path)
    for step in (1, 300, 2**40):
        events.scalars(step, {name: v for name, values in written.items() for s, v in values if s == step})
    events.close()
    found = loader.EventAccumulator(str(tmp_path)).Reload()
    assert found.Tags()["scalars"] == list(written)
    for name, values in written.items():
        assert [(e.step, pytest.approx(e.value)) for e in found.Scalars(name)] == values
