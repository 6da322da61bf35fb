"""Ablations with what they came to: a sweep, what is measured of its runs, and the record."""
