"""The attackers' own channel, over which they pool what they contribute."""
