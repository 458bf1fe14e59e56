"""The values of layers inside a network: in an ONNX or TFLite artifact, or of every FP32 layer on its own.

Values are float32 with the channels last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.artifact import Backend

from ..errors import MeasurementError
from ..inference.network_under_test import NetworkUnderTest
from .layers import Layer, read_model

if TYPE_CHECKING:
    import onnx_ir as ir

QUANTISED = ".quantised"
GIVEN = ".given"

Values = dict[str, NDArray[np.float32]]


class LayerValues(Protocol):
    """A network that shows the values of its layers."""

    def run(self, image: NDArray[np.uint8]) -> Values:
        """The values of all layers for `image`, uint8 (1, H, W, 3)."""
        ...

    def weights(self, layer: Layer) -> NDArray[np.float64]:
        """The weights of a convolution, dequantised: (out, in per group, height, width)."""
        ...


def shows_layers(network: NetworkUnderTest) -> bool:
    """Whether the layers of this network can be seen."""
    return network.artifact is not None and network.artifact.backend in (Backend.ONNXRUNTIME, Backend.TFLITE)


def layer_values(network: NetworkUnderTest, layers: Sequence[Layer]) -> LayerValues:
    """Open a network for the values of `layers`. Raises `MeasurementError` when it does not hold one of them."""
    if network.artifact is not None and network.artifact.backend == Backend.TFLITE:
        return _TfLiteValues(network, layers)
    return _OnnxValues(network, layers)


class IsolatedLayers:
    """Every FP32 layer on its own: given the values that layers read, the values that they should give."""

    def __init__(self, network: NetworkUnderTest, layers: Sequence[Layer]) -> None:
        import onnx_ir

        model = read_model(network, shapes=True)
        values = _values_of(model)
        self._layers, self._cut = layers, sorted({name for layer in layers for name in layer.reads})
        given = {}
        for name in self._cut:
            given[name] = onnx_ir.Value(
                name=f"{name}{GIVEN}", type=onnx_ir.TensorType(onnx_ir.DataType.FLOAT), shape=values[name].shape
            )
        model.graph.inputs.extend(given.values())
        names = {layer.name for layer in layers}
        for node in model.graph:
            if node.name in names:
                for index, value in enumerate(node.inputs):
                    if value is not None and value.name in given:
                        node.replace_input_with(index, given[value.name])
        self._session = _session(model, [values[layer.value] for layer in layers])

    def run(self, image: NDArray[np.uint8], values: Mapping[str, NDArray[np.float32]]) -> Values:
        """What each layer should give, were it given `values` (channels last) of the layers it reads."""
        given = {f"{name}{GIVEN}": _channels_first(values[name]) for name in self._cut}
        return _by_layer(self._layers, self._session.run(None, {"image": image, **given}))


class _OnnxValues:
    def __init__(self, network: NetworkUnderTest, layers: Sequence[Layer]) -> None:
        model = read_model(network)
        present = _values_of(model)
        names = [layer.value for layer in layers]
        shown = [f"{n}{QUANTISED}" if f"{n}{QUANTISED}" in present else n for n in names]
        if missing := [n for n in shown if n not in present]:
            raise MeasurementError(
                f"{network.name} holds no value {missing[0]}; was it built from this bundle's FP32 model?"
            )
        self._layers = layers
        self._constants = {layer.weights: _constant(model, layer.weights) for layer in layers if layer.is_convolution}
        self._session = _session(model, [present[name] for name in shown])

    def run(self, image: NDArray[np.uint8]) -> Values:
        return _by_layer(self._layers, self._session.run(None, {"image": image}))

    def weights(self, layer: Layer) -> NDArray[np.float64]:
        return self._constants[layer.weights]


class _TfLiteValues:
    """By LiteRT's own kernels: XNNPACK, which runs the artifact otherwise, keeps no values inside."""

    def __init__(self, network: NetworkUnderTest, layers: Sequence[Layer]) -> None:
        import warnings

        try:
            from ai_edge_litert.interpreter import Interpreter, OpResolverType
        except ImportError as error:
            raise MeasurementError("--layers of TFLite needs LiteRT; run: pip install ai-edge-litert") from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that keeping all values takes memory
            self._interpreter = Interpreter(
                model_content=network.files[0],
                experimental_preserve_all_tensors=True,
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
        self._interpreter.allocate_tensors()
        self._image = self._interpreter.get_input_details()[0]["index"]
        details = {detail["name"].split(":")[0]: detail for detail in self._interpreter.get_tensor_details()}
        names = {layer.value: layer.given_as or layer.value for layer in layers}
        if missing := [name for name in names.values() if name not in details]:
            raise MeasurementError(f"{network.name} holds no value {missing[0]}; was it lowered by this project?")
        self._all = details
        self._details = {value: details[name] for value, name in names.items()}

    def run(self, image: NDArray[np.uint8]) -> Values:
        self._interpreter.set_tensor(self._image, image)
        self._interpreter.invoke()
        return {name: self._real(detail) for name, detail in self._details.items()}

    def weights(self, layer: Layer) -> NDArray[np.float64]:
        array = self._real(self._all[layer.weights]).astype(np.float64)
        return array.transpose(3, 0, 1, 2) if layer.is_depthwise else array.transpose(0, 3, 1, 2)

    def _real(self, detail: Mapping[str, Any]) -> NDArray[np.float32]:
        array = self._interpreter.get_tensor(detail["index"])
        if array.dtype == np.float32:
            return np.asarray(array)
        parameters = detail["quantization_parameters"]
        shape = np.ones(array.ndim, int)
        shape[parameters["quantized_dimension"]] = -1
        scales, zero_points = (parameters[key].reshape(shape) for key in ("scales", "zero_points"))
        return np.asarray((array.astype(np.float32) - zero_points.astype(np.float32)) * scales.astype(np.float32))


def _values_of(model: ir.Model) -> dict[str, ir.Value]:
    """All values that nodes give, by name."""
    return {str(value.name): value for node in model.graph for value in node.outputs}


def _constant(model: ir.Model, name: str) -> NDArray[np.float64]:
    """A constant, or what a DequantizeLinear makes of one under that name."""
    if name in model.graph.initializers:
        return _array(model.graph.initializers[name])
    dequantise = next(node for node in model.graph if node.outputs[0].name == name)
    integers, scale = (_array(value) for value in dequantise.inputs[:2])
    return integers * scale.reshape(-1, *[1] * (integers.ndim - 1))


def _array(value: ir.Value | None) -> NDArray[np.float64]:
    assert value is not None and value.const_value is not None, "weights are constants"
    return value.const_value.numpy().astype(np.float64)


def _session(model: ir.Model, shown: Sequence[ir.Value]) -> Any:
    """A session on the model with `shown` as outputs. Unoptimised: fusions would take the values away."""
    import onnx_ir
    import onnxruntime

    model.graph.outputs.clear()
    for value in shown:
        value.type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
        model.graph.outputs.append(value)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    content = onnx_ir.serde.serialize_model(model).SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def _by_layer(layers: Sequence[Layer], arrays: Sequence[NDArray[np.float32]]) -> Values:
    """The graph's values are NCHW inside, and its outputs NHWC."""
    return {
        layer.value: array if layer.is_output else np.ascontiguousarray(array.transpose(0, 2, 3, 1))
        for layer, array in zip(layers, arrays, strict=True)
    }


def _channels_first(array: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2))
