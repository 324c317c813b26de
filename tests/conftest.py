"""Settings of the whole suite."""

from __future__ import annotations

from hypothesis import settings

# No promise here is about time, and a busy machine is no failure.
settings.register_profile("fedpg", deadline=None)
settings.load_profile("fedpg")
