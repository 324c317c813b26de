"""Folders of runs: what one holds, which there are, and what of it is exported."""
