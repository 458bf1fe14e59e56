"""From a checkpoint, photographs and a teacher to a trained dense branch: the steps in order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from retinaface_edge.export.checkpoints.checkpoint import Checkpoint
from retinaface_edge.export.graph.export import to_onnx
from retinaface_edge.export.models.deploy import Deploy
from retinaface_edge.export.models.mesh_graph import GraphBranch
from retinaface_edge.export.models.mesh_linear import LinearBranch
from retinaface_edge.runtime import backends
from retinaface_edge.runtime.detector import Detector
from retinaface_edge.runtime.io.images import find_images
from retinaface_edge.runtime.spec import Mesh, Spec

from .fit import accuracy, train
from .int8_features import int8_forms
from .samples import Pictured, Samples, pictured_samples, training_samples, validation_samples
from .teacher import Teacher
from .teacher_labels import TrainingError, label, labels_key

BACKEND = "onnxruntime"
PICTURED_CANVASES = 400
VERSION = 1
"""Of the augmentation: views in the cache that another one drew are not taken."""


def learn_mesh(
    checkpoint: Checkpoint,
    images: Sequence[Path],
    teacher_file: Path,
    *,
    cache: Path | None,
    canvases: int,
    epochs: int,
    seed: int,
    threads: int,
    decoder: str = LinearBranch.kind,
    stage: Callable[[str], None] = lambda text: None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> tuple[LinearBranch | GraphBranch, Mesh, dict[str, Any]]:
    """A branch for the frozen detector of `checkpoint`, its contract, and what to know about it.

    Raises a `RetinaFaceEdgeError` when the checkpoint, the photographs or the teacher cannot be used.
    """
    teacher = Teacher(teacher_file)
    samples, unseen, pictured, about = extract(
        checkpoint, images, teacher, cache, canvases, seed, threads, decoder, stage=stage, progress=progress
    )
    mesh = Mesh(channels=checkpoint.model.channels)
    stage(f"train on {len(samples):,} views of faces, {epochs} epochs")
    branch = train(samples, mesh, epochs, seed, decoder, progress, pictured)
    return (
        branch,
        mesh,
        {
            **about,
            "epochs": epochs,
            "views": len(samples),
            "validation": accuracy(branch, unseen).to_json(),
        },
    )


def extract(
    checkpoint: Checkpoint,
    images: Sequence[Path],
    teacher: Teacher,
    cache: Path | None,
    canvases: int,
    seed: int,
    threads: int,
    decoder: str = LinearBranch.kind,
    *,
    stage: Callable[[str], None] = lambda text: None,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> tuple[Samples, Samples, Pictured | None, dict[str, Any]]:
    """Samples to learn from, samples of photographs kept back, faces with pictures, and where they come from.

    Only a graph decoder has a use for pictures.
    """
    spec = Spec(mesh=Mesh(channels=checkpoint.model.channels))
    stage("export the detector")
    model = to_onnx(Deploy(checkpoint.model, spec).eval(), spec.with_features)
    content = [model.SerializeToString(deterministic=True)]
    paths = find_images(list(images))
    stage(f"find and label faces in {len(paths):,} photographs")
    key = labels_key(checkpoint.digest, teacher.digest)
    folder = None if cache is None else cache / "teacher"
    with Detector(spec, backends.load(BACKEND, spec, content, threads)) as detector:
        labelled = label(paths, detector, teacher, folder, key, progress)
    faces = [sum(len(photograph.sizes) for photograph in side) for side in (labelled.training, labelled.validation)]
    stage(
        f"{faces[0]:,} faces in {len(labelled.training):,} photographs to learn from, {faces[1]:,} in "
        f"{len(labelled.validation):,} to validate on"
    )
    if canvases < 1:
        raise TrainingError(f"training needs at least one canvas, not {canvases}")
    stage("quantise the detector: half of what the branch learns is as INT8 sees it")
    forms = int8_forms(model, spec, labelled.training)
    files = [(BACKEND, content), forms[0], (BACKEND, content), forms[1]]
    networks = [backends.load(backend, spec.with_features, form, threads) for backend, form in files]
    network = networks[0]
    stage(f"describe faces on {canvases:,} augmented canvases")
    digest = hashlib.sha256(b"".join(part for _, form in files for part in form)).hexdigest()
    seen = hashlib.sha256("".join(photograph.digest for photograph in labelled.training).encode()).hexdigest()
    samples = training_samples(
        labelled.training,
        spec,
        networks,
        canvases,
        seed,
        progress,
        None if cache is None else cache / "views",
        f"views {VERSION} {teacher.digest} {digest} {seen}",
    )
    pictured = None
    if decoder == GraphBranch.kind:
        pictured = pictured_samples(labelled.training, spec, network, min(canvases, PICTURED_CANVASES), seed)
    unseen = validation_samples(labelled.validation, spec, network)
    names = sorted(photograph.name for photograph in (*labelled.training, *labelled.validation))
    return (
        samples,
        unseen,
        pictured,
        {
            "checkpoint": checkpoint.digest,
            "teacher": teacher.digest,
            "photographs": {
                "training": len(labelled.training),
                "validation": len(labelled.validation),
                "faces": faces,
                "names_sha256": hashlib.sha256("\n".join(names).encode()).hexdigest(),
            },
            "canvases": canvases,
            "seed": seed,
        },
    )
