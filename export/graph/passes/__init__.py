"""Rewrites of the ONNX graph, one per file."""
