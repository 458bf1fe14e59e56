"""ONNX to OpenVINO IR.

FP32 stays FP32; a QDQ graph keeps its quantisation parameters, which the CPU plugin executes as integers.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

import onnx
import openvino
from openvino._offline_transformations import apply_moc_transformations

from retinaface_edge.calibration.graph.onnx_graph import read_graph, to_proto
from retinaface_edge.runtime.backends.openvino import QUANT_PARAMS
from retinaface_edge.runtime.spec import Contract

from ..graph.passes.float_biases import float_biases
from ..graph.passes.integer_features import integer_features, output_quant_params
from ..graph.passes.uint8_stem import uint8_stem
from .tflite import LoweringError

# What a reader of the IR works out by itself, and what is only there for people: more than half of the XML.
_LEFT_OUT = ((rb">\s+<", b"><"), (rb"<dim>\d+</dim>", b""), (rb"></port>", b"/>"), (rb" />", b"/>"))
_LAYERS = ("Conv", "LeakyRelu", "Relu", "Clip", "Add", "Concat", "Resize", "MaxPool", "AveragePool")


def lower_openvino(model: onnx.ModelProto, spec: Contract) -> tuple[bytes, bytes]:
    """The IR's XML and its weights, the same bytes for the same model: neither holds a path, a time or a counter."""
    prepared = integer_features(uint8_stem(float_biases(read_graph(model))))
    lowered = openvino.Core().read_model(to_proto(prepared).SerializeToString(deterministic=True))
    apply_moc_transformations(lowered, cf=True)
    for port, output in zip(lowered.outputs, spec.outputs, strict=True):
        port.get_tensor().set_names({output.name})
    for name, quant in output_quant_params(prepared).items():
        lowered.set_rt_info(f"{quant.scale!r} {quant.zero_point}", [QUANT_PARAMS, name])
    _share_constants(lowered)
    _rename(lowered, model)
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "model.xml"
        try:
            openvino.save_model(lowered, target, compress_to_fp16=False)
            openvino.Core().read_model(target)  # a full disk may cut the weights short without a word
        except RuntimeError as error:
            raise LoweringError(f"{folder} cannot be written; make room there, or name another by TMPDIR") from error
        return _shortened(target.read_bytes()), target.with_suffix(".bin").read_bytes()


def _shortened(xml: bytes) -> bytes:
    for pattern, replacement in _LEFT_OUT:
        xml = re.sub(pattern, replacement, xml)
    return re.sub(rb"<input>.*?</input>", lambda ports: re.sub(rb' precision="\w+"', b"", ports[0]), xml)


def _share_constants(lowered: openvino.Model) -> None:
    """One constant for each value: a FakeQuantize alone has its range twice."""
    kept: dict[tuple[str, tuple[int, ...], bytes], openvino.Node] = {}
    for operation in lowered.get_ordered_ops():
        if operation.get_type_name() != "Constant":
            continue
        data = operation.data
        first = kept.setdefault((str(data.dtype), tuple(data.shape), data.tobytes()), operation)
        if first is not operation:
            for reader in operation.output(0).get_target_inputs():
                reader.replace_source_output(first.output(0))


def _rename(lowered: openvino.Model, model: onnx.ModelProto) -> None:
    """Layers keep their names; other operations, some named by a counter of the process, get their number here."""
    ends = {value.name for value in (*model.graph.input, *model.graph.output)}
    layers = {name for node in model.graph.node if node.op_type in _LAYERS for name in node.output}
    lowered.set_friendly_name("retinaface")
    for index, operation in enumerate(lowered.get_ordered_ops()):
        if operation.get_friendly_name() not in ends | layers:
            operation.set_friendly_name(str(index))
        for port in operation.outputs():
            port.get_tensor().set_names(port.get_tensor().get_names() & ends)
