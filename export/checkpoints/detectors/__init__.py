"""Trained detectors other than RetinaFace, one file per family, read from ONNX."""
