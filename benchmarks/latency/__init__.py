"""Single-stream latency of artifacts and of competing detectors."""
