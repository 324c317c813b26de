"""Saved policies at work: evaluation and videos."""
