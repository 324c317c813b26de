"""The command line: options that several commands share, how a command starts and how it ends."""
