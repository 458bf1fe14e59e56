"""Calibration data of the dense branch: descriptions of the faces that the FP32 detector finds in the images."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx

from retinaface_edge.runtime import backends
from retinaface_edge.runtime.mesh.branch import describe
from retinaface_edge.runtime.ops.letterbox import letterbox_for
from retinaface_edge.runtime.ops.postprocess import postprocess
from retinaface_edge.runtime.spec import Spec

from ..progress import Progress
from .image_set import CalibrationError, ImageSet

LEAST_SCORE = 0.5
MOST_FACES = 800


def faces_of(model: onnx.ModelProto, spec: Spec, images: ImageSet, progress: Progress = iter) -> ImageSet:
    """Full batches for the branch, float32 of shape `spec.mesh.input_shape`, of the faces that `model` finds.

    A last batch that is not full is filled with faces from the beginning. Raises `CalibrationError` when there is no
    face.
    """
    assert spec.mesh is not None
    network = backends.load("onnxruntime", spec.with_features, [model.SerializeToString()], 1)
    placement, first = letterbox_for(spec, spec.width, spec.height), len(spec.outputs)
    parts = []
    for image in progress(images.inputs):
        outputs = network.run(image)
        faces = postprocess(spec, outputs[:first], network.quant_params[:first], placement, LEAST_SCORE)
        parts.append(describe(spec, outputs[first:], network.quant_params[first:], faces.boxes, faces.landmarks))
    described = np.concatenate(parts)[:MOST_FACES]
    if not len(described):
        raise CalibrationError(f"{images.source} shows no face, and the dense branch is calibrated on faces")
    count = -(-len(described) // spec.mesh.batch) * spec.mesh.batch
    filled = np.resize(described, (count, spec.mesh.inputs)).reshape(-1, *spec.mesh.input_shape)
    digest = hashlib.sha256(filled.tobytes()).hexdigest()
    return ImageSet(tuple(filled), digest, images.source, (), images.skipped)
