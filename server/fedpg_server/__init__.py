"""The aggregation server: coordinator, learner, store, telemetry and the gRPC service."""
