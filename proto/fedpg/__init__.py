"""The contract between FedPG processes: protocol buffers and the Python generated from them."""
