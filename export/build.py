"""The build: checkpoint and calibration images in, a device bundle out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx

from ..calibration.cache import cache_key, read_entry, write_entry
from ..calibration.calibrate import calibrate, grids_from_json
from ..calibration.images import ImageSet
from ..calibration.judge import judge
from ..calibration.layers import format_fits, layer_fits
from ..calibration.mesh import faces_of
from ..calibration.observe import Progress
from ..calibration.quantise import quantise
from ..calibration.recipe import Recipe, recipe_from_json
from ..runtime.bundle import Bundle
from ..runtime.postprocess import Grid
from ..runtime.spec import Contract, Spec
from ..runtime.twin import c_files
from .branch import Branch, DeployBranch
from .checkpoints import Checkpoint
from .deploy import Deploy
from .lower_openvino import lower_openvino
from .lower_tflite import LoweringError, lower_tflite
from .search import search
from .tflite_file import serialise
from .to_onnx import DEFAULT_OPSET, to_onnx
from .write import Content, write_bundle

TOOLS = ("retinaface-edge", "numpy", "torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "openvino", "flatbuffers")


def build(
    checkpoint: Checkpoint,
    spec: Spec,
    images: ImageSet,
    recipe: Recipe,
    output: Path,
    opset: int = DEFAULT_OPSET,
    max_drift: float | None = None,
    cache: Path | None = None,
    branch: Branch | None = None,
    warn: Callable[[str], None] = lambda text: None,
    stage: Callable[[str], None] = lambda name: None,
    progress: Progress = iter,
) -> Bundle:
    """Compile `checkpoint` for `spec`, INT8 by `recipe`, and write the bundle to `output`.

    With `max_drift`, as many layers stay float as that drift of the INT8 faces asks for (`search.py`), and a bundle
    that misses it is not written. With `branch`, the bundle has a dense branch. `warn` is told what is wrong with the
    calibration images, `stage` the name of each step as it begins; `progress` wraps the iteration over calibration
    images. Raises a `RetinaFaceEdgeError` when a step fails; then nothing is written.
    """
    if branch is not None:
        branch.check(checkpoint.digest)
        spec = replace(spec, mesh=branch.mesh)
    stage("export to ONNX")
    model = to_onnx(Deploy(checkpoint.model, spec).eval(), spec.with_features, opset)
    files = _quantised(model, spec, images, recipe, max_drift, cache, stage, progress)
    quantised = onnx.load_from_string(files.pop("model.int8.onnx"))
    calibrated = json.loads(files["calibration.json"])
    for warning in judge(images, calibrated["images"]["with_faces"], spec):
        warn(f"warning: {warning}")
    recipe, grids = recipe_from_json(json.loads(files["recipe.json"]), "recipe.json"), grids_from_json(calibrated)
    artifacts: dict[tuple[str, str], list[str]] = {}
    for precision, graph in (("fp32", model), ("int8", quantised)):
        stage(f"lower {precision} to ONNX, OpenVINO and TFLite")
        lowered = _lowered(graph, spec.with_features, recipe, grids)
        artifacts.update(_added(files, lowered, "model", precision))
    meshes: dict[tuple[str, str], list[str]] = {}
    if branch is not None:
        stage("export and quantise the dense branch")
        meshes = _dense(branch, model, spec, images, recipe, opset, files)
    files.update({f"c/{name}": data for name, data in c_files(spec).items()})
    stage("write the bundle")
    provenance = _provenance(checkpoint, images, opset)
    if branch is not None:
        provenance["mesh"] = {"sha256": branch.digest, **branch.about}
    return write_bundle(Content(spec, files, artifacts, provenance, meshes), output)


_FOLDERS = {"openvino": "openvino", "tflite": "tflite", "onnxruntime": "onnx"}


def _added(
    files: dict[str, bytes], lowered: Mapping[str, Mapping[str, bytes]], name: str, precision: str
) -> dict[tuple[str, str], list[str]]:
    """Add the compiled forms of one network to `files`; gives the paths of each artifact."""
    artifacts = {}
    for backend, compiled in lowered.items():
        paths = [f"{_FOLDERS[backend]}/{name}.{precision}.{suffix}" for suffix in compiled]
        files.update(zip(paths, compiled.values(), strict=True))
        artifacts[backend, precision] = paths
    return artifacts


def _dense(
    branch: Branch,
    detector: onnx.ModelProto,
    spec: Spec,
    images: ImageSet,
    recipe: Recipe,
    opset: int,
    files: dict[str, bytes],
) -> dict[tuple[str, str], list[str]]:
    """Compile the dense branch like the detector, on the faces of the same images; its files are added to `files`.

    No layer of it stays float.
    """
    assert spec.mesh is not None
    recipe = replace(recipe, float_layers=())
    model = to_onnx(DeployBranch(branch.model).eval(), spec.mesh, opset)
    calibration = calibrate(model, spec.mesh, faces_of(detector, spec, images), recipe)
    artifacts: dict[tuple[str, str], list[str]] = {}
    for precision, graph in (("fp32", model), ("int8", quantise(calibration, spec.mesh))):
        lowered = _lowered(graph, spec.mesh, recipe, calibration.grids)
        artifacts.update(_added(files, lowered, "mesh", precision))
    files["mesh.calibration.json"] = _json(calibration.to_json())
    return artifacts


def _quantised(
    model: onnx.ModelProto,
    spec: Spec,
    images: ImageSet,
    recipe: Recipe,
    max_drift: float | None,
    cache: Path | None,
    stage: Callable[[str], None],
    progress: Progress,
) -> dict[str, bytes]:
    """The INT8 model and the data that explains it, by file name; from the cache if it was made before."""
    key = cache_key(model, images, recipe, {"max_drift": max_drift})
    if cache and (known := read_entry(cache, key)):
        stage("calibration and INT8 model are in the cache")
        return known
    stage(f"calibrate on {len(images.inputs)} images")
    calibration = calibrate(model, spec, images, recipe, progress)
    if max_drift is not None:
        calibration, _ = search(calibration, model, spec, max_drift, stage, progress)
    stage(f"quantise by the recipe {recipe.name}")
    quantised = quantise(calibration, spec)
    files = {
        "calibration.json": _json(calibration.to_json()),
        "layers.md": format_fits(layer_fits(calibration, quantised)).encode(),
        "model.int8.onnx": quantised.SerializeToString(deterministic=True),
        "recipe.json": _json(calibration.recipe.to_json()),
    }
    if cache:
        write_entry(cache, key, files)
    return files


def _lowered(
    graph: onnx.ModelProto, spec: Contract, recipe: Recipe, grids: Mapping[str, Grid]
) -> dict[str, dict[str, bytes]]:
    """By backend: the files of the artifact by suffix, the model itself first."""
    xml, weights = lower_openvino(graph, spec)
    tflite = lower_tflite(graph, grids)
    quantised = any(node.op_type == "QuantizeLinear" for node in graph.graph.node)
    float_layers = [n.name for n in graph.graph.node if n.op_type == "Conv" and recipe.is_float(n.name)]
    if quantised and bool(tflite.float_operators) != bool(float_layers):
        raise LoweringError(
            f"{tflite.float_operators} operators of the INT8 TFLite are float; the recipe keeps "
            f"{', '.join(float_layers) or 'none'} float"
        )
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
