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
from retinaface_edge.runtime.spec import Mesh, Spec

from .build_products import CheckpointFacts, DenseBranch, ExportedNetwork, LoweredNetwork, QuantisedNetwork
from .build_request import BuildRequest, Reporter, Silent
from .build_stages import EXPORTERS, checked, dense, exported, lowered, quantised, recognised, resized
from .bundle_writer import Content, MoreSize, write_bundle
from .licences import licence
from .stage_cache import Stages

__all__ = ["BuildRequest", "Reporter", "Silent", "build"]

TOOLS = ("retinaface-edge", "numpy", *EXPORTERS, "openvino", "flatbuffers")

Artifacts = dict[ArtifactId, dict[str, bytes]]
"""The files of each compiled form of a network, by their path in the bundle, the model itself first."""


def build(request: BuildRequest, reporter: Reporter | None = None) -> Bundle:
    """Compile a checkpoint and write the bundle.

    Raises a `RetinaFaceEdgeError` when a step fails; then nothing is written.

    The same request gives the same bytes: times, hosts, users and paths go to the reporter and never into the bundle.
    To keep other builds from the same output, hold `bundle_writer.reserved` around this call.
    """
    reporter = reporter or Silent()
    branch = request.branch
    if branch is not None:
        branch.check(request.checkpoint.digest)
    stages = Stages(request.cache, reporter.stage, reporter.finished)
    found = recognised(stages, request, reporter)
    facts, spec = found.checkpoint, Spec.from_json(found.spec)
    if branch is not None:
        spec = replace(spec, mesh=branch.mesh)
    _tell(facts, request, reporter)
    network = exported(stages, spec, request, reporter)
    int8 = quantised(stages, network, spec, request, reporter)
    for warning in int8.warnings:
        reporter.warn(warning)
    if request.self_check:
        for note in checked(stages, network, int8, spec, request, reporter).notes:
            reporter.warn(note)
    artifacts, meshes = _detector(stages, network, int8, spec, reporter), Artifacts()
    sizes = [
        (other, *_at_size(stages, network, int8, other, request, reporter)) for other in _other_sizes(spec, request)
    ]
    files = {"calibration.json": int8.calibration, "layers.md": int8.layers, "recipe.json": int8.recipe}
    if branch is not None:
        product = dense(stages, branch, network, spec, request, reporter)
        files["mesh.calibration.json"] = product.calibration
        meshes = _mesh(stages, product, branch.mesh, reporter)
    files.update({f"c/{name}": data for name, data in c_files(spec).items()})
    for other, compiled_for, _ in sizes:
        files.update({f"c/{other.width}x{other.height}/{name}": data for name, data in c_files(other).items()})
        for compiled in compiled_for.values():
            files.update(compiled)
    for compiled in (*artifacts.values(), *meshes.values()):
        files.update(compiled)
    reporter.stage("write the bundle")
    content = Content(
        spec,
        files,
        _paths(artifacts),
        _provenance(request, facts, network, int8),
        _paths(meshes),
        request.release,
        [MoreSize(other, _paths(compiled_for), cost) for other, compiled_for, cost in sizes],
    )
    return write_bundle(content, request.output, request.sign)


def _detector(
    stages: Stages,
    network: ExportedNetwork,
    int8: QuantisedNetwork,
    spec: Spec,
    reporter: Reporter,
    folder: str = "",
) -> Artifacts:
    artifacts = Artifacts()
    contract = spec.with_features
    for precision, graph, explained in ((Precision.FP32, network.model, None), (Precision.INT8, int8.model, int8)):
        name = f"lower {precision} to ONNX, OpenVINO and TFLite{folder and f', {folder[:-1]}'}"
        compiled = lowered(stages, name, graph, contract, explained, reporter)
        artifacts.update(_artifacts(f"{folder}model", precision, graph, compiled))
    return artifacts


def _other_sizes(spec: Spec, request: BuildRequest) -> list[Spec]:
    """The contracts of the further sizes, each once."""
    sizes = dict.fromkeys(size for size in request.more_sizes if size != (spec.width, spec.height))
    return [replace(spec, width=width, height=height) for width, height in sizes]


def _at_size(
    stages: Stages,
    network: ExportedNetwork,
    int8: QuantisedNetwork,
    spec: Spec,
    request: BuildRequest,
    reporter: Reporter,
) -> tuple[Artifacts, int]:
    """The artifacts for the input size of `spec`, checked as those of the first are, and what one frame costs."""
    size = f"{spec.width}x{spec.height}"
    models = resized(stages, network, int8, spec)
    network, int8 = replace(network, model=models.fp32), replace(int8, model=models.int8)
    if request.self_check:
        for note in checked(stages, network, int8, spec, request, reporter).notes:
            reporter.warn(f"{size}: {note}")
    return _detector(stages, network, int8, spec, reporter, f"{size}/"), models.multiply_accumulates


def _paths(artifacts: Artifacts) -> dict[ArtifactId, tuple[str, ...]]:
    return {artifact: tuple(compiled) for artifact, compiled in artifacts.items()}


def _mesh(stages: Stages, product: DenseBranch, contract: Mesh, reporter: Reporter) -> Artifacts:
    artifacts = Artifacts()
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


def _tell(facts: CheckpointFacts, request: BuildRequest, reporter: Reporter) -> None:
    """Report what was recognised, and the licence of published weights if the user stated none."""
    unwrapped = f", without {', '.join(facts.wrappings)}" if facts.wrappings else ""
    reporter.stage(f"checkpoint: {facts.family}, {facts.backbone}{unwrapped}, sha256 {facts.sha256[:12]}")
    if facts.terms is not None and request.checkpoint_licence is None:
        reporter.stage(f"licence: {facts.family}'s published weights are {facts.terms}; --licence states another")


def _provenance(
    request: BuildRequest, facts: CheckpointFacts, network: ExportedNetwork, int8: QuantisedNetwork
) -> dict[str, Any]:
    checkpoint = {key: value for key, value in to_json(facts).items() if key != "terms"}
    images = json.loads(int8.calibration)["images"]
    provenance: dict[str, Any] = {
        "checkpoint": {**checkpoint, "licence": request.checkpoint_licence or facts.terms or "unknown"},
        "network": {"multiply_accumulates": network.multiply_accumulates},
        "calibration": {"sha256": images["digest"], "images": images["count"], "skipped": images["skipped"]},
        "opset": request.opset,
        "tools": {name: version(name) for name in TOOLS},
        "licences": {name: licence(name) for name in TOOLS},
    }
    if request.branch is not None:
        provenance["mesh"] = {"sha256": request.branch.digest, **request.branch.about}
    return provenance
