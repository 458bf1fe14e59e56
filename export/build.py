"""The build: checkpoint and calibration images in, a device bundle out, by stages that are each made once.

A stage imports what it runs when it runs, so that a build whose stages are all in the cache starts no PyTorch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_edge.calibration.dataset.image_set import ImageSource
from retinaface_edge.calibration.observers import Progress
from retinaface_edge.calibration.recipe import Recipe, for_branch, recipe_from_json
from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.c.generate import c_files
from retinaface_edge.runtime.spec import Contract, Spec

from .bundle_writer import Content, Sign, write_bundle
from .checkpoints.source import CheckpointSource
from .graph.opset import DEFAULT_OPSET
from .licences import licence
from .stage_cache import Files, Stages, digest_of

if TYPE_CHECKING:
    import onnx

    from .models.mesh_branch import Branch

EXPORTERS = ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime")
QUANTISERS = ("onnx", "onnxruntime", "openvino", "ai-edge-litert", "pillow")
LOWERERS = ("onnx", "openvino", "ai-edge-litert", "flatbuffers")
TOOLS = ("retinaface-edge", "numpy", *EXPORTERS, "openvino", "flatbuffers")
_FOLDERS = {"openvino": "openvino", "tflite": "tflite", "onnxruntime": "onnx"}

Artifacts = dict[tuple[str, str], list[str]]
"""The paths of each compiled form of a network, by backend and precision."""


def build(
    checkpoint: CheckpointSource,
    spec: Spec,
    images: ImageSource,
    recipe: Recipe,
    output: Path,
    opset: int = DEFAULT_OPSET,
    max_drift: float | None = None,
    cache: Path | None = None,
    branch: Branch | None = None,
    warn: Callable[[str], None] = lambda text: None,
    stage: Callable[[str], None] = lambda name: None,
    progress: Progress = iter,
    checkpoint_licence: str | None = None,
    sign: Sign | None = None,
    log: list[dict[str, Any]] | None = None,
) -> Bundle:
    """Compile `checkpoint` for `spec`, INT8 by `recipe`, and write the bundle to `output`.

    With `max_drift`, as many layers stay float as that drift of the INT8 faces asks for (`search.py`), and a bundle
    that misses it is not written. With `branch`, the bundle has a dense branch. `warn` is told what is wrong with the
    calibration images, `stage` the name of each step as it begins; `progress` wraps the iteration over calibration
    images. `sign` signs the manifest. `log` is given what `Stages.log` holds. Raises a `RetinaFaceEdgeError` when a
    step fails; then nothing is written.

    The same inputs give the same bytes: times, hosts, users and paths go to `log`, never into the bundle. To keep other
    builds from the same `output`, hold `write.reserved` around this call.
    """
    if branch is not None:
        branch.check(checkpoint.digest)
        spec = replace(spec, mesh=branch.mesh)
    stages = Stages(cache, stage)
    exported = _exported(stages, checkpoint, spec, opset, stage)
    about = json.loads(exported["checkpoint.json"])
    stage(f"checkpoint: {about['family']}, MobileNetV1 x{about['width']:g}, sha256 {about['sha256'][:12]}")
    files = _quantised(stages, exported["model.onnx"], spec, images, recipe, max_drift, warn, stage, progress)
    for warning in json.loads(files.pop("warnings.json")):
        warn(warning)
    artifacts: Artifacts = {}
    for precision, graph in (("fp32", exported["model.onnx"]), ("int8", files.pop("model.int8.onnx"))):
        name = f"lower {precision} to ONNX, OpenVINO and TFLite"
        explained = {} if precision == "fp32" else files
        lowered = _lowered(stages, name, graph, spec.with_features, explained, stage)
        artifacts.update(_added(files, lowered, "model", precision))
    meshes: Artifacts = {}
    if branch is not None:
        dense = _dense(stages, branch, exported["model.onnx"], spec, images, recipe, opset, stage)
        files["mesh.calibration.json"] = dense["calibration.json"]
        for precision in ("fp32", "int8"):
            name, explained = f"lower the dense branch, {precision}", {} if precision == "fp32" else dense
            lowered = _lowered(stages, name, dense[f"mesh.{precision}.onnx"], branch.mesh, explained, stage)
            meshes.update(_added(files, lowered, "mesh", precision))
    files.update({f"c/{name}": data for name, data in c_files(spec).items()})
    stage("write the bundle")
    used = json.loads(files["calibration.json"])["images"]
    provenance: dict[str, Any] = {
        "checkpoint": {**about, "licence": checkpoint_licence or "unknown"},
        "network": json.loads(exported["network.json"]),
        "calibration": {"sha256": used["digest"], "images": used["count"], "skipped": used["skipped"]},
        "opset": opset,
        "tools": {name: version(name) for name in TOOLS},
        "licences": {name: licence(name) for name in TOOLS},
    }
    if branch is not None:
        provenance["mesh"] = {"sha256": branch.digest, **branch.about}
    if log is not None:
        log += stages.log
    return write_bundle(Content(spec, files, artifacts, provenance, meshes), output, sign)


def _exported(
    stages: Stages, checkpoint: CheckpointSource, spec: Spec, opset: int, stage: Callable[[str], None]
) -> dict[str, bytes]:
    """`model.onnx`, FP32; `checkpoint.json`, what the checkpoint was recognised as; `network.json`, its size."""

    def make() -> Files:
        from .graph.export import to_onnx
        from .graph.multiply_accumulates import multiply_accumulates
        from .models.deploy import Deploy

        stage("export to ONNX")
        read = checkpoint.read()
        about = {
            "family": read.family,
            "sha256": read.digest,
            "width": read.model.architecture.backbone.stem.outputs / 32,
            "channels": read.model.channels,
        }
        model = to_onnx(Deploy(read.model, spec).eval(), spec.with_features, opset)
        network = {"multiply_accumulates": multiply_accumulates(model)}
        return {"model.onnx": _serialised(model), "checkpoint.json": _json(about), "network.json": _json(network)}

    inputs = {"checkpoint": checkpoint.digest, "spec": spec.to_json(), "opset": opset}
    return stages.run("export to ONNX", inputs, EXPORTERS, make)


def _quantised(
    stages: Stages,
    graph: bytes,
    spec: Spec,
    images: ImageSource,
    recipe: Recipe,
    max_drift: float | None,
    warn: Callable[[str], None],
    stage: Callable[[str], None],
    progress: Progress,
) -> dict[str, bytes]:
    """The INT8 model, the data that explains it, and `warnings.json`: what is wrong with the images."""

    def make() -> Files:
        import onnx

        from retinaface_edge.calibration.calibrate import calibrate
        from retinaface_edge.calibration.dataset.checks import judge
        from retinaface_edge.calibration.layer_report import format_fits, layer_fits
        from retinaface_edge.calibration.qdq import quantise

        model = onnx.load_from_string(graph)
        warnings: list[str] = []
        pictures = images.read(warnings.append)
        stage(f"calibrate on {len(pictures.inputs)} images")
        calibration = calibrate(model, spec, pictures, recipe, progress)
        if max_drift is not None:
            from .precision_search import search

            calibration, _ = search(calibration, model, spec, max_drift, stage, progress)
        stage(f"quantise by the recipe {recipe.name}")
        quantised = quantise(calibration, spec)
        warnings += [f"warning: {text}" for text in judge(pictures, calibration.faces, spec)]
        return {
            "calibration.json": _json(calibration.to_json()),
            "layers.md": format_fits(layer_fits(calibration, quantised)).encode(),
            "model.int8.onnx": _serialised(quantised),
            "recipe.json": _json(calibration.recipe.to_json()),
            "warnings.json": json.dumps(warnings).encode(),
        }

    inputs = {
        "model": digest_of(graph),
        "spec": spec.to_json(),
        "images": images.digest,
        "recipe": recipe.to_json(),
        "max_drift": max_drift,
    }
    return stages.run("calibration and INT8 model", inputs, QUANTISERS, make)


def _dense(
    stages: Stages,
    branch: Branch,
    detector: bytes,
    spec: Spec,
    images: ImageSource,
    recipe: Recipe,
    opset: int,
    stage: Callable[[str], None],
) -> dict[str, bytes]:
    """The dense branch as `mesh.fp32.onnx` and `mesh.int8.onnx`, quantised on the faces of the same images.

    With `calibration.json` and `recipe.json` as of the detector; but by the recipe that `for_branch` makes of it.
    """
    recipe = for_branch(recipe)

    def make() -> Files:
        import onnx

        from retinaface_edge.calibration.calibrate import calibrate
        from retinaface_edge.calibration.dataset.face_samples import faces_of
        from retinaface_edge.calibration.qdq import quantise

        from .graph.export import to_onnx
        from .models.mesh_branch import deployed

        stage("export and quantise the dense branch")
        model = to_onnx(deployed(branch.model).eval(), branch.mesh, opset)
        faces = faces_of(onnx.load_from_string(detector), spec, images.read(lambda warning: None))
        calibration = calibrate(model, branch.mesh, faces, recipe)
        return {
            "mesh.fp32.onnx": _serialised(model),
            "mesh.int8.onnx": _serialised(quantise(calibration, branch.mesh)),
            "calibration.json": _json(calibration.to_json()),
            "recipe.json": _json(recipe.to_json()),
        }

    inputs = {
        "branch": branch.digest,
        "model": digest_of(detector),
        "spec": spec.to_json(),
        "images": images.digest,
        "recipe": recipe.to_json(),
        "opset": opset,
    }
    return stages.run("export and quantise the dense branch", inputs, (*EXPORTERS, *QUANTISERS), make)


def _lowered(
    stages: Stages, name: str, graph: bytes, contract: Contract, quantised: Files, stage: Callable[[str], None]
) -> dict[str, dict[str, bytes]]:
    """By backend: the files of the artifact by suffix, the model itself first.

    `quantised` has `calibration.json` and `recipe.json` of an INT8 graph, and nothing for an FP32 one.
    """
    explained = {key: quantised[key] for key in ("calibration.json", "recipe.json") if quantised}

    def make() -> Files:
        import onnx

        from retinaface_edge.calibration.calibrate import grids_from_json

        from .lower.openvino import lower_openvino
        from .lower.tflite import LoweringError, lower_tflite
        from .lower.tflite_schema import serialise

        stage(name)
        model = onnx.load_from_string(graph)
        xml, weights = lower_openvino(model, contract)
        if not explained:
            return {"xml": xml, "bin": weights, "tflite": serialise(lower_tflite(model, {}))}
        recipe = recipe_from_json(json.loads(explained["recipe.json"]), "recipe.json")
        tflite = lower_tflite(model, grids_from_json(json.loads(explained["calibration.json"])))
        float_layers = [n.name for n in model.graph.node if n.op_type == "Conv" and recipe.is_float(n.name)]
        if bool(tflite.float_operators) != bool(float_layers):
            raise LoweringError(
                f"{tflite.float_operators} operators of the INT8 TFLite are float; the recipe keeps "
                f"{', '.join(float_layers) or 'none'} float"
            )
        return {"xml": xml, "bin": weights, "tflite": serialise(tflite)}

    inputs = {
        "model": digest_of(graph),
        "outputs": [output.name for output in contract.outputs],
        **{key: digest_of(data) for key, data in explained.items()},
    }
    files = stages.run(name, inputs, LOWERERS, make)
    return {
        "openvino": {"xml": files["xml"], "bin": files["bin"]},
        "tflite": {"tflite": files["tflite"]},
        "onnxruntime": {"onnx": graph},
    }


def _added(files: dict[str, bytes], lowered: Mapping[str, Mapping[str, bytes]], name: str, precision: str) -> Artifacts:
    """Add the compiled forms of one network to `files`; gives the paths of each artifact."""
    artifacts = {}
    for backend, compiled in lowered.items():
        paths = [f"{_FOLDERS[backend]}/{name}.{precision}.{suffix}" for suffix in compiled]
        files.update(zip(paths, compiled.values(), strict=True))
        artifacts[backend, precision] = paths
    return artifacts


def _serialised(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
