"""What the agents and the server compute with."""
