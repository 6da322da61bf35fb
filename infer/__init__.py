"""Checkpoints to text. Imports `codelm` and no other room."""
