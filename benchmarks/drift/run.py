"""Drift: every artifact of a bundle against FP32, on pictures that need no annotation.

The pairs that are compared: FP32 on ONNX Runtime with every other artifact; the quantised ONNX with the INT8 artifacts
that were made of it, which shows a backend's own faults without the noise of quantisation; and a checkpoint with every
artifact, if one is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from retinaface_edge.runtime.artifact import ArtifactId, Backend, Precision
from retinaface_edge.runtime.ops.postprocess import Faces

from ..errors import MeasurementError
from ..inference.faces import FacesFound
from ..inference.measurement import Execution, Measured, Quantity, Unreadable, image_set, measure_pictures
from ..inference.network_under_test import REFERENCE, NetworkUnderTest
from ..results import FORMAT_VERSION, FaceRecord
from ..versions import environment
from .detection_metrics import DetectionTotals, ImageComparison, compare_faces
from .result import Comparison, DriftResult, WorstImage
from .tensor_metrics import TensorSums, TensorTotals

QUANTISED = ArtifactId(Backend.ONNXRUNTIME, Precision.INT8)
"""The quantised ONNX, of which all other INT8 artifacts are made."""
WORST_IMAGES = 8


@dataclass(frozen=True)
class Pair:
    """An artifact and the reference that it is compared with."""

    reference: NetworkUnderTest
    artifact: NetworkUnderTest


def pairs_of(networks: Sequence[NetworkUnderTest], every: bool = False) -> list[Pair]:
    """Which networks to compare.

    Raises `MeasurementError` when there is nothing to compare, or FP32 on ONNX Runtime is not among them.
    """
    names = ", ".join(network.name for network in networks)
    first = next((network for network in networks if network.artifact == REFERENCE), None)
    if every:
        pairs = [Pair(reference, artifact) for reference, artifact in combinations(networks, 2)]
    elif first is None:
        raise MeasurementError(f"{REFERENCE}, which the others are compared with, is not among: {names}")
    else:
        pairs = [Pair(first, network) for network in networks if network is not first]
        quantised = [network for network in networks if network.artifact == QUANTISED]
        pairs += [
            Pair(reference, network)
            for reference in quantised
            for network in networks
            if network is not reference and network.artifact and network.artifact.precision == Precision.INT8
        ]
        elsewhere = [network for network in networks if network.artifact is None]
        pairs += [
            Pair(reference, network)
            for reference in elsewhere
            for network in networks
            if network is not reference and network is not first
        ]
    if not pairs:
        raise MeasurementError(f"drift compares artifacts, and there is only: {names}")
    return pairs


def drift(
    networks: Sequence[NetworkUnderTest],
    files: Mapping[str, Path],
    execution: Execution,
    *,
    every_pair: bool = False,
    score_threshold: float = 0.5,
) -> DriftResult:
    """Compare `networks` on the pictures `files` (name to path).

    Raises `MeasurementError` when no picture can be read; those that cannot are named in the result.
    """
    spec = networks[0].spec
    totals = [_Totals(pair) for pair in pairs_of(networks, every_pair)]
    quantities: list[Quantity[object]] = [FacesFound(network) for network in networks]
    quantities += [total.tensor_sums for total in totals]
    worst = _WorstImages(score_threshold)
    digests: dict[str, str] = {}
    skipped: list[Unreadable] = []
    for outcome in measure_pictures(quantities, files, execution):
        if isinstance(outcome, Unreadable):
            skipped.append(outcome)
            continue
        digests[outcome.name] = outcome.digest
        frame_scale = max(outcome.size[0] / spec.width, outcome.size[1] / spec.height)
        for total in totals:
            compared = total.add(outcome, frame_scale, score_threshold)
            if total.pair.reference.artifact == REFERENCE:
                worst.add(total.pair, compared, outcome)
    return DriftResult(
        kind="drift",
        format_version=FORMAT_VERSION,
        environment=environment(),
        networks=tuple(network.record for network in networks),
        input_px=(spec.width, spec.height),
        score_threshold=score_threshold,
        images=image_set(digests, skipped),
        comparisons=tuple(total.comparison() for total in totals),
        worst_images=worst.images(),
    )


class _Totals:
    """One pair, over the pictures so far."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        self.tensors = TensorTotals(pair.artifact.spec)
        self.detections = DetectionTotals()

    @property
    def tensor_sums(self) -> TensorSums:
        return TensorSums(self.pair.reference, self.pair.artifact)

    def add(self, picture: Measured, frame_scale: float, score_threshold: float) -> ImageComparison:
        """Count in one picture; `frame_scale` is the number of picture pixels per input pixel."""
        self.tensors.add(picture.name, picture.value(self.tensor_sums))
        reference, artifact = (
            picture.value(FacesFound(network)) for network in (self.pair.reference, self.pair.artifact)
        )
        compared = compare_faces(picture.name, reference, artifact, frame_scale, score_threshold)
        self.detections.add(compared)
        return compared

    def comparison(self) -> Comparison:
        return Comparison(
            reference=self.pair.reference.name,
            artifact=self.pair.artifact.name,
            tensors=self.tensors.figures(),
            detections=self.detections.summary(),
            missed=self.detections.missed(),
            invented=self.detections.invented(),
            per_image=self.detections.per_image(),
        )


class _WorstImages:
    """The pictures that drifted most, each with the artifact that drifted most there."""

    def __init__(self, score_threshold: float) -> None:
        self._score_threshold = score_threshold
        self._kept: dict[str, WorstImage] = {}

    def add(self, pair: Pair, compared: ImageComparison, picture: Measured) -> None:
        """Keep the picture if it is among the worst so far."""
        lost = sum(face.score for face in (*compared.missed, *compared.invented))
        difference = lost + float((1.0 - compared.matched[:, 2]).sum())
        known = self._kept.get(picture.name)
        if known and known.visible_difference >= difference:
            return
        self._kept[picture.name] = WorstImage(
            reference=pair.reference.name,
            artifact=pair.artifact.name,
            image=picture.name,
            visible_difference=difference,
            reference_faces=self._faces(picture.value(FacesFound(pair.reference))),
            artifact_faces=self._faces(picture.value(FacesFound(pair.artifact))),
        )
        if len(self._kept) > WORST_IMAGES:
            del self._kept[min(self._kept, key=lambda name: self._kept[name].visible_difference)]

    def images(self) -> tuple[WorstImage, ...]:
        """Worst first."""
        return tuple(sorted(self._kept.values(), key=lambda worst: worst.visible_difference, reverse=True))

    def _faces(self, faces: Faces) -> tuple[FaceRecord, ...]:
        return tuple(
            FaceRecord(face.score, face.box, face.landmarks) for face in faces if face.score >= self._score_threshold
        )
