"""What is told to libtpu, and where."""

import os
from pathlib import Path

import pytest

from codelm import cli, libtpu


@pytest.mark.parametrize("sign", ["dev/accel0", "dev/vfio/0", "pci/0000:00:05.0/vendor"])
def test_any_sign_of_a_tpu_will_do(tmp_path: Path, sign: str) -> None:
    assert not libtpu.tpu_is_here(tmp_path / "dev", tmp_path / "pci")
    other = tmp_path / "pci" / "0000:00:04.0" / "vendor"
    other.parent.mkdir(parents=True)
    other.write_text("0x8086\n")
    assert not libtpu.tpu_is_here(tmp_path / "dev", tmp_path / "pci")
    (tmp_path / sign).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / sign).write_text("0x1ae0\n")
    assert libtpu.tpu_is_here(tmp_path / "dev", tmp_path / "pci")


@pytest.mark.parametrize("here", [True, False])
def test_where_there_is_a_tpu_nothing_is_told(monkeypatch: pytest.MonkeyPatch, here: bool) -> None:
    monkeypatch.setattr(os, "environ", {"TPU_ACCELERATOR_TYPE": "v5p-64"})
    monkeypatch.setattr(libtpu, "tpu_is_here", lambda: here)
    cli.main(["plan"])
    assert os.environ["TPU_ACCELERATOR_TYPE"] == "v5p-64"
    assert ("TPU_WORKER_HOSTNAMES" in os.environ) is not here
