"""libtpu where there is no TPU: it compiles plans, and is told not to look for what is not there."""

import os
from pathlib import Path

_GOOGLE = "0x1ae0"  # the vendor of TPUs among PCI devices
# Without these it asks a metadata server for the machine's TPUs and complains at length that there are none.
_ALONE = {
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5e-4",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_STDERR_LOG_LEVEL": "3",
}


def tpu_is_here(devices: Path = Path("/dev"), buses: Path = Path("/sys/bus/pci/devices")) -> bool:
    """Any sign of one will do, for libtpu must not be told wrong where there is one."""
    nodes = any(devices.glob("accel*")) or (devices / "vfio").exists()
    return nodes or any(vendor.read_text().strip() == _GOOGLE for vendor in buses.glob("*/vendor"))


def leave_alone() -> None:
    """Before libtpu is loaded."""
    for variable, value in _ALONE.items():
        os.environ.setdefault(variable, value)
