"""Text to batches. Imports `codelm` and no other room."""
