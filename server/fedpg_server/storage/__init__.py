"""What survives kill -9: the store, its seal, and the locks on it."""
