"""The ONNX opsets that can be asked for."""

OPSETS = range(17, 22)
DEFAULT_OPSET = 18
