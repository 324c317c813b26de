"""Files that people write or open: TOML in, HTML pages out."""
