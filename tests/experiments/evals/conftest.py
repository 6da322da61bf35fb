"""A pool of sandboxes for the tests that run code."""

from collections.abc import Iterator

import pytest

from codelm.sandbox import Pool


@pytest.fixture(scope="package")
def pool() -> Iterator[Pool]:
    with Pool() as pool:
        yield pool
