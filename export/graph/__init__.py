"""The ONNX graph: export from PyTorch, and the passes that rewrite it."""
