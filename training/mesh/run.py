"""From a checkpoint, photographs and a teacher to a trained dense branch: the steps in order."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx

from retinaface_edge.export.graph.opset import DEFAULT_OPSET
from retinaface_edge.export.models.mesh_graph import GraphBranch
from retinaface_edge.export.models.mesh_linear import LinearBranch
from retinaface_edge.runtime import backends
from retinaface_edge.runtime.detector import Detector
from retinaface_edge.runtime.io.picture_files import picture_files
from retinaface_edge.runtime.spec import Mesh, Spec

from ..request import MeshTrainRequest, Reporter, Silent
from .fit import accuracy, train
from .int8_features import Files, int8_forms
from .samples import Canvases, Pictured, Samples, pictured_samples, training_samples, validation_samples
from .teacher import Teacher
from .teacher_labels import Labelled, label, labels_key

BACKEND = "onnxruntime"
PICTURED_CANVASES = 400
VERSION = 1
"""Of the augmentation: samples in the cache that another version drew are not used."""


@dataclass(frozen=True, eq=False)
class TrainedBranch:
    """A branch in evaluation mode, its contract, and what `branch_file` is to write about it."""

    model: LinearBranch | GraphBranch
    mesh: Mesh
    about: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Extracted:
    """Samples to learn from, samples of photographs kept back, faces with pictures, and where they come from.

    Only a graph decoder has a use for `pictured`.
    """

    training: Samples
    validation: Samples
    pictured: Pictured | None
    about: Mapping[str, Any]


def learn_mesh(request: MeshTrainRequest, reporter: Reporter | None = None) -> TrainedBranch:
    """Train the branch.

    Raises a `RetinaFaceEdgeError` when the checkpoint, the photographs or the teacher cannot be used.
    """
    reporter = reporter or Silent()
    mesh = Mesh(channels=request.checkpoint.feature_channels)
    extracted = extract(request, mesh, Teacher(request.teacher), reporter)
    samples = extracted.training
    reporter.stage(f"train on {len(samples):,} samples of faces, {request.epochs} epochs")
    branch = train(samples, mesh, request.epochs, request.seed, request.decoder, reporter.progress, extracted.pictured)
    about = {
        **extracted.about,
        "epochs": request.epochs,
        "views": len(samples),
        "validation": accuracy(branch, extracted.validation).to_json(),
    }
    return TrainedBranch(branch, mesh, about)


def extract(request: MeshTrainRequest, mesh: Mesh, teacher: Teacher, reporter: Reporter) -> Extracted:
    """Label the photographs, and describe the faces in them and on augmented canvases."""
    # The checkpoint's own settings, at the usual input size.
    spec = request.checkpoint.spec(Spec.width, Spec.height, mesh)
    reporter.stage("export the detector")
    model = request.checkpoint.graph(spec, DEFAULT_OPSET)
    labelled = _labelled(request, spec, model, teacher, reporter)
    reporter.stage("quantise the detector: half of the training samples use its INT8 features")
    forms = int8_forms(model, spec, labelled.training)
    fp32: Files = (BACKEND, _serialised(model))
    files = [fp32, forms[0], fp32, forms[1]]
    networks = [backends.load(backend, spec.with_features, form, request.threads) for backend, form in files]
    network = networks[0]
    reporter.stage(f"describe faces on {request.canvases:,} augmented canvases")
    digest = hashlib.sha256(b"".join(part for _, form in files for part in form)).hexdigest()
    seen = hashlib.sha256("".join(photograph.digest for photograph in labelled.training).encode()).hexdigest()
    key = f"views {VERSION} {teacher.digest} {digest} {seen}"
    canvases = Canvases(request.canvases, request.seed, request.cache and request.cache / "views", key)
    samples = training_samples(labelled.training, spec, networks, canvases, reporter.progress)
    pictured = None
    if request.decoder == GraphBranch.kind:
        count = min(request.canvases, PICTURED_CANVASES)
        pictured = pictured_samples(labelled.training, spec, network, count, request.seed)
    unseen = validation_samples(labelled.validation, spec, network)
    return Extracted(samples, unseen, pictured, _about(request, labelled, teacher))


def _labelled(
    request: MeshTrainRequest, spec: Spec, model: onnx.ModelProto, teacher: Teacher, reporter: Reporter
) -> Labelled:
    """The photographs with the faces that the detector finds and the meshes that the teacher sees."""
    files = picture_files(request.images, keep_damaged=True)
    if files.skipped:
        reporter.stage(files.skipped_text)
    paths = files.pictures
    reporter.stage(f"find and label faces in {len(paths):,} photographs")
    key = labels_key(request.checkpoint.digest, teacher.digest)
    folder = request.cache and request.cache / "teacher"
    with Detector(spec, backends.load(BACKEND, spec, _serialised(model), request.threads)) as detector:
        labelled = label(paths, detector, teacher, folder, key, reporter.progress)
    if labelled.skipped:
        reporter.stage(f"skipped, cannot be read: {', '.join(labelled.skipped)}")
    training, validation = _faces(labelled)
    reporter.stage(
        f"{training:,} faces in {len(labelled.training):,} photographs to learn from, {validation:,} in "
        f"{len(labelled.validation):,} to validate on"
    )
    return labelled


def _serialised(model: onnx.ModelProto) -> list[bytes]:
    return [model.SerializeToString(deterministic=True)]


def _faces(labelled: Labelled) -> tuple[int, int]:
    training, validation = (
        sum(len(photograph.sizes) for photograph in side) for side in (labelled.training, labelled.validation)
    )
    return training, validation


def _about(request: MeshTrainRequest, labelled: Labelled, teacher: Teacher) -> dict[str, Any]:
    names = sorted(photograph.name for photograph in (*labelled.training, *labelled.validation))
    return {
        "checkpoint": request.checkpoint.digest,
        "teacher": teacher.digest,
        "photographs": {
            "training": len(labelled.training),
            "validation": len(labelled.validation),
            "faces": list(_faces(labelled)),
            "names_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest(),
        },
        "canvases": request.canvases,
        "seed": request.seed,
    }
