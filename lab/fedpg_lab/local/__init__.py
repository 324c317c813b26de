"""Federations on this machine: processes, progress, and training from beginning to end."""
