"""Experiments: many runs from one file, and the report on them."""
