"""A page that shows runs while they learn and afterwards: `fedpg watch`."""
