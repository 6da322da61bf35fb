"""Batches to checkpoints. Imports `codelm`, `data` and (for rollouts) `infer`."""
