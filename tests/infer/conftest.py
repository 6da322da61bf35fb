"""Engines compile many programs, and a process has room for so many (the kernel's limit on mapped memory): past it, XLA
ends the process. So the tests of a file begin without those of the files before."""

import gc

import jax
import pytest


@pytest.fixture(scope="module", autouse=True)
def room_for_programs() -> None:
    jax.clear_caches()
    gc.collect()
