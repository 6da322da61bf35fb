"""Runs of configs: the launcher, sweeps, evaluation, reports. Nothing imports this room."""
