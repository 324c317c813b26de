"""What goes over the network: channels, messages as arrays, verdicts."""
