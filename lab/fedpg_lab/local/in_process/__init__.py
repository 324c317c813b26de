"""A federation in one process: the same learner, agents and store, without network and processes."""
