"""One Python file an experiment: data only, `def config() -> Config`."""
