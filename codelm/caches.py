"""Where things are kept that can be made again: tokens, and compiled programs. Importing it loads no jax."""

from pathlib import Path

CACHE = Path("~/.cache/codelm")


def keep_compiled(cache: Path = CACHE) -> None:
    """So that going on, or another run of the same sizes, does not compile again. JAX's own setting comes first."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(cache.expanduser() / "compiled"))
