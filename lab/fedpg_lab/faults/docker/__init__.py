"""Faults on containers, through a Docker engine."""
