"""Fault experiments: what a network, and what crashes, do to a federation that trains."""
