"""The networked agent: its loop, its calls and retries, and its Byzantine behaviours."""
