"""The algorithms: from a round's μ to the next policy, a class each."""
