"""What fedpg-guard is made of: parts that keep their memory in named vectors. docs/defence.md has the equations."""
