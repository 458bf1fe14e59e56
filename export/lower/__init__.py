"""Lowers the ONNX graph to OpenVINO IR and TFLite."""
