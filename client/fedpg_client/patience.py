"""How long an agent waits for its server, unless told otherwise."""

CONNECT_PATIENCE_S = 30.0
"""At the start."""
PATIENCE_S = 600.0
"""Later."""
