"""gRPC as a server speaks it: listening, limits, who is calling, and the service itself."""
