"""The build: checkpoint and calibration images in, a device bundle out."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from retinaface_edge.runtime.artifact import ArtifactId, Backend, Precision
from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.c.generate import c_files
from retinaface_edge.runtime.records import to_json

from .build_products import DenseBranch, ExportedNetwork, LoweredNetwork, QuantisedNetwork
from .build_request import BuildRequest, Reporter, Silent
from .build_stages import EXPORTERS, dense, exported, lowered, quantised
from .bundle_writer import Content, write_bundle
from .licences import licence
from .stage_cache import Stages

__all__ = ["BuildRequest", "Reporter", "Silent", "build"]

TOOLS = ("retinaface-edge", "numpy", *EXPORTERS, "openvino", "flatbuffers")

Artifacts = dict[ArtifactId, dict[str, bytes]]
"""The files of each compiled form of a network, by their path in the bundle, the model itself first."""


def build(request: BuildRequest, reporter: Reporter | None = None) -> Bundle:
    """Compile a checkpoint and write the bundle.

    Raises a `RetinaFaceEdgeError` when a step fails; then nothing is written.

    The same request gives the same bytes: times, hosts, users and paths are for the reporter and never in the bundle.
    To keep other builds from the same output, hold `bundle_writer.reserved` around this call.
    """
    reporter = reporter or Silent()
    branch = request.branch
    if branch is not None:
        branch.check(request.checkpoint.digest)
        request = replace(request, spec=replace(request.spec, mesh=branch.mesh))
    stages = Stages(request.cache, reporter.stage, reporter.finished)
    network = exported(stages, request, reporter)
    facts = network.checkpoint
    reporter.stage(f"checkpoint: {facts.family}, MobileNetV1 x{facts.width:g}, sha256 {facts.sha256[:12]}")
    int8 = quantised(stages, network, request, reporter)
    for warning in int8.warnings:
        reporter.warn(warning)
    artifacts, meshes = _detector(stages, network, int8, request, reporter), Artifacts()
    files = {"calibration.json": int8.calibration, "layers.md": int8.layers, "recipe.json": int8.recipe}
    if branch is not None:
        product = dense(stages, branch, network, request, reporter)
        files["mesh.calibration.json"] = product.calibration
        meshes = _mesh(stages, product, request, reporter)
    files.update({f"c/{name}": data for name, data in c_files(request.spec).items()})
    for compiled in (*artifacts.values(), *meshes.values()):
        files.update(compiled)
    reporter.stage("write the bundle")
    content = Content(
        request.spec,
        files,
        {artifact: tuple(compiled) for artifact, compiled in artifacts.items()},
        _provenance(request, network, int8),
        {artifact: tuple(compiled) for artifact, compiled in meshes.items()},
    )
    return write_bundle(content, request.output, request.sign)


def _detector(
    stages: Stages, network: ExportedNetwork, int8: QuantisedNetwork, request: BuildRequest, reporter: Reporter
) -> Artifacts:
    artifacts = Artifacts()
    contract = request.spec.with_features
    for precision, graph, explained in ((Precision.FP32, network.model, None), (Precision.INT8, int8.model, int8)):
        name = f"lower {precision} to ONNX, OpenVINO and TFLite"
        compiled = lowered(stages, name, graph, contract, explained, reporter)
        artifacts.update(_artifacts("model", precision, graph, compiled))
    return artifacts


def _mesh(stages: Stages, product: DenseBranch, request: BuildRequest, reporter: Reporter) -> Artifacts:
    assert request.branch is not None
    artifacts = Artifacts()
    contract = request.branch.mesh
    for precision, graph, explained in ((Precision.FP32, product.fp32, None), (Precision.INT8, product.int8, product)):
        name = f"lower the dense branch, {precision}"
        compiled = lowered(stages, name, graph, contract, explained, reporter)
        artifacts.update(_artifacts("mesh", precision, graph, compiled))
    return artifacts


def _artifacts(name: str, precision: Precision, graph: bytes, compiled: LoweredNetwork) -> Artifacts:
    stem = f"{name}.{precision}"
    return {
        ArtifactId(Backend.OPENVINO, precision): {
            f"openvino/{stem}.xml": compiled.xml,
            f"openvino/{stem}.bin": compiled.weights,
        },
        ArtifactId(Backend.TFLITE, precision): {f"tflite/{stem}.tflite": compiled.tflite},
        ArtifactId(Backend.ONNXRUNTIME, precision): {f"onnx/{stem}.onnx": graph},
    }


def _provenance(request: BuildRequest, network: ExportedNetwork, int8: QuantisedNetwork) -> dict[str, Any]:
    images = json.loads(int8.calibration)["images"]
    provenance: dict[str, Any] = {
        "checkpoint": {**to_json(network.checkpoint), "licence": request.checkpoint_licence or "unknown"},
        "network": {"multiply_accumulates": network.multiply_accumulates},
        "calibration": {"sha256": images["digest"], "images": images["count"], "skipped": images["skipped"]},
        "opset": request.opset,
        "tools": {name: version(name) for name in TOOLS},
        "licences": {name: licence(name) for name in TOOLS},
    }
    if request.branch is not None:
        provenance["mesh"] = {"sha256": request.branch.digest, **request.branch.about}
    return provenance
