"""The values inside a network: those of the FP32 ONNX graph, and the same ones inside the artifacts made of it.

A layer is a convolution with what directly follows it (activation, or the transposition of an output), an addition, a
concatenation or a resizing. Its value has the same name in every artifact that keeps names: the ONNX files and TFLite.
Values are given as float32 with the channels last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..inference.network_under_test import MeasurementError, Subject

LAYERS = ("Conv", "Add", "Concat", "Resize")
FOLLOWERS = ("LeakyRelu", "Relu", "Transpose")
QUANTISED = ".quantised"
GIVEN = ".given"

Values = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Layer:
    """A layer of the FP32 graph: its name, its kind for people, its value, and the values that it reads."""

    name: str
    kind: str
    value: str
    reads: tuple[str, ...]
    is_output: bool
    weights: str
    """The name of a convolution's weights; empty for other layers."""
    given_as: str = ""
    """The output that gives the value besides its readers, if one does: TFLite knows the value by that name."""

    @property
    def is_convolution(self) -> bool:
        """Whether the layer has weights."""
        return bool(self.weights)


class Probe(Protocol):
    """A network that shows its values."""

    def run(self, image: NDArray[np.uint8]) -> Values:
        """The values of all layers for `image`, uint8 (1, H, W, 3)."""
        ...

    def weights(self, layer: Layer) -> NDArray[np.float64]:
        """The weights of a convolution, dequantised: (out, in, height, width), or (channels, 1, height, width)."""
        ...


def can_probe(subject: Subject) -> bool:
    """Whether the layers of this subject can be seen."""
    return subject.loader is None and subject.backend in ("onnxruntime", "tflite")


def probe(subject: Subject, layers: Sequence[Layer]) -> Probe:
    """Open a subject for the values of `layers`. Raises `MeasurementError` when it does not hold one of them."""
    if subject.backend == "tflite":
        return _TfLiteProbe(subject, layers)
    return _OnnxProbe(_parsed(subject), layers, subject.name)


def read_layers(subject: Subject) -> list[Layer]:
    """The layers of an FP32 ONNX artifact, in the order in which they run."""
    graph = _parsed(subject).graph
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    outputs = {output.name for output in graph.output}
    layers: list[Layer] = []
    values: set[str] = set()
    for node in graph.node:
        if node.op_type not in LAYERS:
            continue
        value = node.output[0]
        while len(after := readers.get(value, [])) == 1 and after[0].op_type in FOLLOWERS:
            value = after[0].output[0]
        reads = tuple(name for name in node.input if name in values)
        weights = node.input[1] if node.op_type == "Conv" else ""
        also = next((n.output[0] for n in after if n.op_type == "Transpose" and n.output[0] in outputs), "")
        layers.append(Layer(node.name, _kind(node), value, reads, value in outputs, weights, also))
        values.add(value)
    return layers


class Isolated:
    """Every FP32 layer on its own: given the values that layers read, the values that they should give."""

    def __init__(self, subject: Subject, layers: Sequence[Layer]) -> None:
        import onnx

        model = _parsed(subject)
        graph = model.graph
        shapes = _shapes(model)
        cut = {name for layer in layers for name in layer.reads}
        names = {layer.name for layer in layers}
        for node in graph.node:
            if node.name in names:
                node.input[:] = [f"{name}{GIVEN}" if name in cut else name for name in node.input]
        for name in sorted(cut):
            graph.input.append(
                onnx.helper.make_tensor_value_info(f"{name}{GIVEN}", onnx.TensorProto.FLOAT, shapes[name])
            )
        self._layers, self._cut = layers, sorted(cut)
        self._session = _session(model, [layer.value for layer in layers])

    def run(self, image: NDArray[np.uint8], values: Mapping[str, NDArray[np.float32]]) -> Values:
        """What each layer should give, were it given `values` (channels last) of the layers it reads."""
        given = {f"{name}{GIVEN}": _channels_first(values[name]) for name in self._cut}
        return _values(self._layers, self._session.run(None, {"image": image, **given}))


class _OnnxProbe:
    def __init__(self, model: Any, layers: Sequence[Layer], name: str) -> None:
        present = {output for node in model.graph.node for output in node.output}
        names = [layer.value for layer in layers]
        shown = [f"{n}{QUANTISED}" if f"{n}{QUANTISED}" in present else n for n in names]
        if missing := [n for n in shown if n not in present]:
            raise MeasurementError(f"{name} holds no value {missing[0]}; was it built from this bundle's FP32 model?")
        self._layers = layers
        self._constants = _constants(model)
        self._session = _session(model, shown)

    def run(self, image: NDArray[np.uint8]) -> Values:
        return _values(self._layers, self._session.run(None, {"image": image}))

    def weights(self, layer: Layer) -> NDArray[np.float64]:
        return self._constants[layer.weights]


class _TfLiteProbe:
    """By LiteRT's own kernels: XNNPACK, which runs the artifact otherwise, keeps no values inside."""

    def __init__(self, subject: Subject, layers: Sequence[Layer]) -> None:
        import warnings

        try:
            from ai_edge_litert.interpreter import Interpreter, OpResolverType
        except ImportError as error:
            raise MeasurementError("--layers of TFLite needs LiteRT; run: pip install ai-edge-litert") from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that keeping all values takes memory
            self._interpreter = Interpreter(
                model_content=subject.files[0],
                experimental_preserve_all_tensors=True,
                experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
            )
        self._interpreter.allocate_tensors()
        self._image = self._interpreter.get_input_details()[0]["index"]
        details = {detail["name"].split(":")[0]: detail for detail in self._interpreter.get_tensor_details()}
        names = {layer.value: layer.given_as or layer.value for layer in layers}
        if missing := [name for name in names.values() if name not in details]:
            raise MeasurementError(f"{subject.name} holds no value {missing[0]}; was it lowered by this project?")
        self._all = details
        self._details = {value: details[name] for value, name in names.items()}

    def run(self, image: NDArray[np.uint8]) -> Values:
        self._interpreter.set_tensor(self._image, image)
        self._interpreter.invoke()
        return {name: self._real(detail) for name, detail in self._details.items()}

    def weights(self, layer: Layer) -> NDArray[np.float64]:
        array = self._real(self._all[layer.weights]).astype(np.float64)
        return array.transpose(3, 0, 1, 2) if layer.kind.startswith("depthwise") else array.transpose(0, 3, 1, 2)

    def _real(self, detail: Mapping[str, Any]) -> NDArray[np.float32]:
        array = self._interpreter.get_tensor(detail["index"])
        if array.dtype == np.float32:
            return np.asarray(array)
        parameters = detail["quantization_parameters"]
        shape = np.ones(array.ndim, int)
        shape[parameters["quantized_dimension"]] = -1
        scales, zero_points = (parameters[key].reshape(shape) for key in ("scales", "zero_points"))
        return np.asarray((array.astype(np.float32) - zero_points.astype(np.float32)) * scales.astype(np.float32))


def _constants(model: Any) -> dict[str, NDArray[np.float64]]:
    """Constants by name, those behind a DequantizeLinear under the name of its result."""
    from onnx import numpy_helper

    raw = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    constants = {name: array.astype(np.float64) for name, array in raw.items() if array.dtype == np.float32}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in raw:
            integers, scale = raw[node.input[0]].astype(np.float64), raw[node.input[1]].astype(np.float64)
            constants[node.output[0]] = integers * scale.reshape(-1, *[1] * (integers.ndim - 1))
    return constants


def _kind(node: Any) -> str:
    if node.op_type != "Conv":
        return str(node.op_type).lower()
    attributes = {attribute.name: attribute for attribute in node.attribute}
    depthwise = "group" in attributes and attributes["group"].i > 1
    size = "x".join(str(side) for side in attributes["kernel_shape"].ints) if "kernel_shape" in attributes else ""
    return f"{'depthwise' if depthwise else 'conv'} {size}".strip()


def _parsed(subject: Subject) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MeasurementError("--layers needs onnx; run: pip install onnx") from error
    return onnx.load_from_string(subject.files[0])


def _shapes(model: Any) -> dict[str, list[int]]:
    import onnx

    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*inferred.value_info, *inferred.output)
    }


def _session(model: Any, names: Sequence[str]) -> Any:
    """A session on the model with `names` as outputs. Unoptimised: fusions would take the values away."""
    import onnx
    import onnxruntime

    del model.graph.output[:]
    model.graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in names)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _values(layers: Sequence[Layer], arrays: Sequence[NDArray[np.float32]]) -> Values:
    """The graph's values are NCHW inside, and its outputs NHWC."""
    return {
        layer.value: array if layer.is_output else np.ascontiguousarray(array.transpose(0, 2, 3, 1))
        for layer, array in zip(layers, arrays, strict=True)
    }


def _channels_first(array: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ascontiguousarray(array.transpose(0, 3, 1, 2))
