"""Version 1 of the contract; see federation.proto and collusion.proto."""
