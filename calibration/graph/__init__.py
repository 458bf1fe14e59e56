"""ONNX graphs: reading and writing them, running them, and the part that takes the image in."""
