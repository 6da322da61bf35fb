import numpy as np
import pytest

from train import stragglers


def test_the_slow_host_is_named() -> None:
    said = stragglers.told(np.array([1.0, 1.1, 5.0, 0.9], np.float32))
    assert said == "host 2 is slow: busy 5.00 s where the median is 1.05 s"


@pytest.mark.parametrize("seconds", [[1.0, 1.2, 0.9], [0.0, 0.0], [2.0]])
def test_hosts_that_are_alike_are_not(seconds: list[float]) -> None:
    assert stragglers.told(np.array(seconds, np.float32)) is None


def test_one_host_is_never_slow() -> None:
    assert stragglers.slowest(100.0) is None
