"""Whether a model is better: suites of tasks, one harness that asks for them and scores the answers, statistics."""
