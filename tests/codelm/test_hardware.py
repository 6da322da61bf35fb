from types import SimpleNamespace
from typing import Any

import jax
import pytest

from codelm.hardware import peak_flops


@pytest.mark.parametrize(
    ("kind", "flops"),
    [
        ("TPU v5 lite", 197e12),
        ("TPU v5", 459e12),
        ("TPU v6 lite", 918e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA A100-SXM4-40GB", 312e12),
    ],
)
def test_the_longest_name_that_fits_decides(kind: str, flops: float) -> None:
    device: Any = SimpleNamespace(platform="gpu", device_kind=kind)
    assert peak_flops(device)[0] == flops


def test_what_nobody_knows_is_zero() -> None:
    device: Any = SimpleNamespace(platform="gpu", device_kind="Abacus 3000")
    assert peak_flops(device) == (0.0, "unknown device 'Abacus 3000'")


def test_of_a_processor_it_is_measured() -> None:
    flops, source = peak_flops(jax.devices("cpu")[0])
    assert flops > 1e9
    assert source.startswith("measured")
