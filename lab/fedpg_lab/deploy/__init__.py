"""Federations elsewhere: Compose and stack files, certificates."""
