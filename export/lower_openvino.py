"""ONNX to OpenVINO IR. FP32 stays FP32; a QDQ graph keeps its grids, which the CPU plugin executes as integers."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx
import openvino

from ..runtime.spec import Spec


def lower_openvino(model: onnx.ModelProto, spec: Spec) -> tuple[bytes, bytes]:
    """The IR's XML and its weights, the same bytes for the same model: neither holds a path or a time."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "model.onnx", Path(folder) / "model.xml"
        source.write_bytes(model.SerializeToString())
        lowered = openvino.convert_model(source)
        for port, output in zip(lowered.outputs, spec.outputs, strict=True):
            port.get_tensor().set_names({output.name})
        lowered.set_friendly_name("retinaface")
        openvino.save_model(lowered, target, compress_to_fp16=False)
        return target.read_bytes(), target.with_suffix(".bin").read_bytes()
