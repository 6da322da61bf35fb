"""What every test runs under: eight simulated CPU devices, a compile cache in the working tree, checked shapes."""

import gc
import os
from pathlib import Path

ROOT = Path(__file__).parent.parent

# Before jax is imported anywhere: it reads these once.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
# Compiling is most of the time of these tests, and what is compiled is tiny: a quick compile beats a good one.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

# Tracing makes millions of small objects that are all in use: looking through them less often is a tenth of the time.
gc.set_threshold(100_000, 20, 100)

# Every shape in a signature of the modules that compute is checked while the tests run.
from jaxtyping import install_import_hook  # noqa: E402

COMPUTE = ["codelm.model", "codelm.attention", "codelm.loss", "codelm.moe", "data", "train", "infer"]
install_import_hook(COMPUTE, "beartype.beartype")
