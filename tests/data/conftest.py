"""A Google Cloud Storage that runs here, for whatever reads or writes `gs://`."""

import os
import socket
from collections.abc import Iterator

import pytest

# gcsfs reads this when it is imported: asking what kind of bucket it is goes to a service that the emulator is not.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

BUCKET = "codelm"


@pytest.fixture(scope="session")
def gcs() -> Iterator[str]:
    """`gs://codelm` on an emulator in this process; every test writes below a folder of its own."""
    from gcp_storage_emulator.server import create_server

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket=BUCKET)
    server.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
        patch.setenv("FSSPEC_GCS_TOKEN", "anon")
        patch.setenv("FSSPEC_GS_TOKEN", "anon")
        import fsspec.config

        conf = {name: dict(fsspec.config.conf.get(name, {})) | {"token": "anon"} for name in ("gcs", "gs")}
        for name, settings in conf.items():
            patch.setitem(fsspec.config.conf, name, settings)
        yield f"gs://{BUCKET}"
    server.stop()
