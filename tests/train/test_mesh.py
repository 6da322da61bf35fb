"""Slices of a pod: what talks much stays within one."""

import numpy as np
import pytest

from codelm.errors import UserError
from train.mesh import mesh_on
from train.topologies import Topology, parse

AXES = {"data": 1, "fsdp": 1, "tensor": 1, "context": 1, "expert": 1}


@pytest.fixture(scope="module")
def slices() -> Topology:
    pytest.importorskip("libtpu", reason="libtpu describes TPUs: the extra tpu")
    found = parse("v5e:2x2", 2)
    assert isinstance(found, Topology)
    return found


@pytest.mark.parametrize(
    ("sizes", "apart"),
    [({"data": 2, "fsdp": 4}, "data"), ({"fsdp": 4, "tensor": 2}, "fsdp"), ({"data": 4, "context": 2}, "data")],
)
def test_the_first_axis_that_they_divide_goes_over_slices(slices: Topology, sizes: dict[str, int], apart: str) -> None:
    with mesh_on(AXES | sizes, slices.devices) as mesh:
        number = np.vectorize(lambda device: device.slice_index)(mesh.devices)
        axis = mesh.axis_names.index(apart)
        halves = np.split(number, 2, axis=axis)
        assert [set(half.reshape(-1).tolist()) for half in halves] == [{0}, {1}]


def test_axes_that_talk_much_do_not_go_over_slices(slices: Topology) -> None:
    with pytest.raises(UserError, match=r"2 slices: mesh.data=1 or mesh.fsdp=1 must be a multiple"):  # noqa: SIM117
        with mesh_on(AXES | {"tensor": 8}, slices.devices):
            pass
