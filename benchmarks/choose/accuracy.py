"""Accuracy of several bundles on one set of pictures, annotated or labelled by a reference bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.ops.postprocess import Faces

from ..accuracy.compare import Comparable, compare_results
from ..accuracy.datasets import AP50, FACES, Annotated, Dataset
from ..accuracy.protocol import LEAST_FACE_PX
from ..accuracy.result import Accuracy, EvalResult, Verdict
from ..accuracy.run import evaluate
from ..errors import MeasurementError
from ..inference.faces import FacesFound
from ..inference.measurement import Execution, Unreadable, measure_pictures
from ..inference.network_under_test import REFERENCE, networks_of

LEAST_SCORE = 0.5
"""Faces of the reference from this score on are what others must find."""


@dataclass(frozen=True)
class Measured:
    """What was measured: one result per bundle, by its name, all of the same pictures."""

    by_bundle: Mapping[str, EvalResult]

    @property
    def first(self) -> EvalResult:
        """Any of them, for what they have in common."""
        return next(iter(self.by_bundle.values()))

    @property
    def setting(self) -> str:
        """The setting of the protocol that candidates are compared by: the last, which is WIDER FACE's hard one."""
        return list(self.first.results[0].ap)[-1]

    def row(self, bundle: str, artifact: str) -> Accuracy:
        """The accuracy of one artifact. Raises `KeyError` where it was not measured."""
        return {row.artifact: row for row in self.by_bundle[bundle].results}[artifact]

    def better(self, a: tuple[str, str], b: tuple[str, str]) -> bool:
        """Whether a (bundle, artifact) has a higher average precision than another, beyond noise."""
        changes = compare_results(self._alone(*b), self._alone(*a)).changes
        return next(change for change in changes if change.protocol == self.setting).verdict is Verdict.BETTER

    def warnings(self) -> Sequence[str]:
        """What makes the accuracies of different bundles hard to compare."""
        faces = {name: result.results[0].faces[self.setting] for name, result in self.by_bundle.items()}
        if len(set(faces.values())) == 1:
            return ()
        counts = ", ".join(f"{name} {count}" for name, count in faces.items())
        return (f"inputs of different shapes count different faces as large enough: {counts}",)

    def _alone(self, bundle: str, artifact: str) -> Comparable:
        """One artifact, in a form that is compared with any other's."""
        result, rows = self.by_bundle[bundle], {"candidate": self.row(bundle, artifact).per_image}
        return Comparable("eval", {}, result.dataset.protocol, rows, result.images, result.environment, ())


def accuracy_of(
    bundles: Mapping[str, Bundle],
    artifacts: Mapping[str, Sequence[str]],
    dataset: Dataset,
    execution: Execution,
    least_face_px: float = LEAST_FACE_PX,
) -> Measured:
    """Evaluate `artifacts` (their names by bundle), whole pictures letterboxed to each bundle's input.

    `least_face_px` is in pixels of the largest input, so that all are asked for the same faces.
    """
    largest = max((bundle.spec for bundle in bundles.values()), key=lambda spec: spec.width * spec.height)
    measured = {}
    for name, bundle in bundles.items():
        if not artifacts[name]:
            continue
        ratio = max(bundle.spec.width / largest.width, bundle.spec.height / largest.height)
        networks = networks_of(bundle, artifacts[name])
        measured[name] = evaluate(networks, dataset, execution, scale="input", least_face_px=least_face_px * ratio)
    return Measured(measured)


def labelled_by(bundle: Bundle, name: str, files: Mapping[str, Path], execution: Execution) -> Dataset:
    """The faces that the bundle's FP32 finds, as the annotation of pictures that have none.

    Average precision on them is agreement with that bundle. Raises `MeasurementError` when it finds no face at all.
    """
    (network,) = networks_of(bundle, [str(REFERENCE)])
    quantity = FacesFound(network)
    pictures = []
    for outcome in measure_pictures([quantity], files, execution):
        if not isinstance(outcome, Unreadable):
            pictures.append(_annotated(outcome.name, files[outcome.name], outcome.value(quantity)))
    if not any(len(picture.faces) for picture in pictures):
        raise MeasurementError(
            f"{name} finds no face in {len(files)} pictures; give other pictures, or annotated ones with --boxes"
        )
    return Dataset(f"faces of {name} {REFERENCE}", AP50, tuple(pictures), "agreement, not accuracy")


def _annotated(name: str, path: Path, faces: Faces) -> Annotated:
    sure = faces.scores >= LEAST_SCORE
    boxes, landmarks = faces.boxes[sure], faces.landmarks[sure]
    if landmarks.shape[1:] != (5, 2):
        landmarks = np.full((len(boxes), 5, 2), np.nan)
    return Annotated(name, path, boxes, {FACES: np.ones(len(boxes), bool)}, landmarks)
