"""The laboratory on top: local federations, progress, figures; the `fedpg` command."""
