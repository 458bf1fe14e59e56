"""The build: checkpoint and calibration images in, a device bundle out."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx

from ..calibration.calibrate import Calibration, calibrate
from ..calibration.images import ImageSet
from ..calibration.observe import Progress
from ..calibration.quantise import quantise
from ..runtime.bundle import Bundle
from ..runtime.spec import Spec
from .checkpoints import Checkpoint
from .deploy import Deploy
from .lower_openvino import lower_openvino
from .lower_tflite import LoweringError, lower_tflite
from .tflite_file import serialise
from .to_onnx import DEFAULT_OPSET, to_onnx
from .write import Content, write_bundle

TOOLS = ("retinaface-edge", "numpy", "torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "openvino", "flatbuffers")


def build(
    checkpoint: Checkpoint,
    spec: Spec,
    images: ImageSet,
    output: Path,
    opset: int = DEFAULT_OPSET,
    stage: Callable[[str], None] = lambda name: None,
    progress: Progress = iter,
) -> Bundle:
    """Compile `checkpoint` for `spec` and write the bundle to `output`.

    `stage` is told the name of each step as it begins, `progress` wraps the iteration over calibration images. Raises a
    `RetinaFaceEdgeError` when a step fails; then nothing is written.
    """
    stage("export to ONNX")
    model = to_onnx(Deploy(checkpoint.model, spec).eval(), spec, opset)
    stage(f"calibrate on {len(images.inputs)} images")
    calibration = calibrate(model, spec, images, progress)
    stage("quantise")
    quantised = quantise(calibration.model, spec, calibration.grids)
    files = {"calibration.json": _json(calibration.to_json())}
    artifacts: dict[tuple[str, str], list[str]] = {}
    for precision, graph in (("fp32", model), ("int8", quantised)):
        stage(f"lower {precision} to ONNX, OpenVINO and TFLite")
        for backend, compiled in _lowered(graph, spec, calibration).items():
            paths = [f"{_FOLDERS[backend]}/model.{precision}.{suffix}" for suffix in compiled]
            files.update(zip(paths, compiled.values(), strict=True))
            artifacts[backend, precision] = paths
    stage("write the bundle")
    return write_bundle(Content(spec, files, artifacts, _provenance(checkpoint, images, opset)), output)


_FOLDERS = {"openvino": "openvino", "tflite": "tflite", "onnxruntime": "onnx"}


def _lowered(graph: onnx.ModelProto, spec: Spec, calibration: Calibration) -> dict[str, dict[str, bytes]]:
    """By backend: the files of the artifact by suffix, the model itself first."""
    xml, weights = lower_openvino(graph, spec)
    tflite = lower_tflite(graph, calibration.grids)
    quantised = any(node.op_type == "QuantizeLinear" for node in graph.graph.node)
    if quantised and tflite.float_operators:
        raise LoweringError(f"{tflite.float_operators} operators of the INT8 TFLite stayed float; none should")
    return {
        "openvino": {"xml": xml, "bin": weights},
        "tflite": {"tflite": serialise(tflite)},
        "onnxruntime": {"onnx": graph.SerializeToString(deterministic=True)},
    }


def _provenance(checkpoint: Checkpoint, images: ImageSet, opset: int) -> dict[str, Any]:
    return {
        "checkpoint": {
            "family": checkpoint.family,
            "sha256": checkpoint.digest,
            "width": checkpoint.model.width,
            "channels": checkpoint.model.channels,
        },
        "calibration": {"sha256": images.digest, "images": len(images.inputs), "skipped": list(images.skipped)},
        "opset": opset,
        "tools": {name: version(name) for name in TOOLS},
    }


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
