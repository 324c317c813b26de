"""The commands of `fedpg`: options in, one call, what is printed out. A module per command."""
