"""The bars of the dense branch: `python tests/acceptance/bars/mesh_error.py BUNDLE --images DIR --teacher FILE`.

Every artifact finds the faces of the photographs kept back from training, and its meshes are compared with the
teacher's; FP32 and INT8 on the same faces, so that their difference is quantisation's.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retinaface_edge.export.stage_cache import default_folder
from retinaface_edge.runtime.backends import installed
from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.detector import Detector
from retinaface_edge.runtime.io.picture_files import picture_files
from retinaface_edge.runtime.mesh.branch import head_pose
from retinaface_edge.training.mesh.samples import mesh_of
from retinaface_edge.training.mesh.teacher import Teacher
from retinaface_edge.training.mesh.teacher_labels import Labelled, label, labels_key


def judge(bundle: Bundle, labelled: Labelled) -> list[tuple[str, int, float, float]]:
    """Each artifact's name, faces, and mean error in per cent: over all faces, and over those of yaw below 30."""
    rows = []
    for artifact in bundle.meshes:
        if artifact.backend not in installed():
            continue
        errors, yaws = [], []
        with Detector.load(bundle, artifact.backend, artifact.precision) as detector:
            for photograph in labelled.validation:
                frame = np.ascontiguousarray(np.asarray(photograph.picture))
                faces = detector.detect(frame, rgb=True, mesh=True)
                assert faces.vertices is not None
                for box, vertices in zip(faces.boxes, faces.vertices, strict=True):
                    which = mesh_of(box, photograph.meshes)
                    if which >= 0:
                        wanted = photograph.meshes[which]
                        distance = np.linalg.norm((vertices - wanted)[:, :2], axis=1).mean()
                        errors.append(100.0 * distance / np.sqrt(np.prod(box[2:] - box[:2])))
                        yaws.append(abs(head_pose(wanted).yaw))
        error, frontal = np.array(errors), np.array(yaws) < 30.0
        rows.append((artifact.name, len(error), float(error.mean()), float(error[frontal].mean())))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=Path, nargs="+", required=True, metavar="DIR")
    parser.add_argument("--teacher", type=Path, required=True, metavar="FILE")
    parser.add_argument("--cache", type=Path, metavar="DIR")
    options = parser.parse_args(arguments)
    bundle, teacher = Bundle.load(options.bundle), Teacher(options.teacher)
    key = labels_key(bundle.manifest["provenance"]["checkpoint"]["sha256"], teacher.digest)
    with Detector.load(bundle, "onnxruntime", "fp32") as detector:
        cache = (options.cache or default_folder().parent) / "teacher"
        labelled = label(picture_files(options.images).pictures, detector, teacher, cache, key, iter)
    print(f"{'artifact':20} {'faces':>6} {'error %':>8} {'yaw < 30 %':>10}")
    for name, faces, error, frontal in judge(bundle, labelled):
        print(f"{name:20} {faces:6d} {error:8.3f} {frontal:10.3f}")


if __name__ == "__main__":
    main()
