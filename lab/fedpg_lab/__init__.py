"""The laboratory on top: local federations, progress, plots; the `fedpg` command."""
