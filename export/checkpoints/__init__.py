"""Reads trained detectors: PyTorch checkpoints and ONNX files."""
