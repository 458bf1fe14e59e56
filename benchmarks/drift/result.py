"""Result types of `drift`, as they are written to files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ..accuracy.result import JudgedImage
from ..identity.result import IdentityFloor
from ..results import BundleOrigin, FaceRecord, ImageSet, MeasuredNetwork


@dataclass(frozen=True)
class TensorDrift:
    """One output over all images, at all anchors or at those where faces may be. None without any value.

    `sqnr_db` is 10·log₁₀(Σr² / Σ(a − r)²) of artifact a and reference r; `cosine` Σar / √(Σa²·Σr²); `gain` Σar / Σr²,
    the factor by which the artifact's values are too large; `largest_difference` max|a − r|.
    """

    output: str
    head: str
    stride: int
    anchors: Literal["all", "candidates"]
    count: int
    sqnr_db: float | None
    cosine: float | None
    gain: float | None
    largest_difference: float | None
    worst_image: str
    worst_sqnr_db: float | None


@dataclass(frozen=True)
class LostFace:
    """A face that only one side has: its score there, its shorter side in input pixels, its box in the image.

    `below_threshold`: the other side has it too, with a score below the threshold.
    """

    image: str
    score: float
    size_px: float
    box: tuple[float, float, float, float]
    below_threshold: bool


@dataclass(frozen=True)
class SizeCounts:
    """Faces whose shorter side is in [from_px, to_px) input pixels."""

    from_px: float
    to_px: float | None
    matched: int
    missed: int
    invented: int


@dataclass(frozen=True)
class ScoreCounts:
    """Faces whose score is in [from_score, to_score)."""

    from_score: float
    to_score: float
    matched: int
    missed: int
    invented: int


@dataclass(frozen=True)
class DetectionDrift:
    """The faces of an artifact against its reference's, over all images. None where there is nothing to take one of.

    `ap` is the average precision with the reference's faces from a score on (the key) as the truth. A landmark shift
    is the mean distance of the five points as a share of √(width·height) of the reference's box. `missed` are faces
    that only the reference has, `invented` those that only the artifact has; `..._below_threshold` are those of them
    that the other side has below the score threshold. `p05` and `p95` are percentiles.
    """

    ap: Mapping[str, float | None]
    matched: int
    missed: int
    missed_below_threshold: int
    invented: int
    invented_below_threshold: int
    iou_mean: float | None
    iou_p05: float | None
    iou_least: float | None
    score_shift_mean: float | None
    score_shift_absolute_mean: float | None
    score_shift_absolute_largest: float | None
    landmark_shift_mean_share: float | None
    landmark_shift_p95_share: float | None
    by_size: tuple[SizeCounts, ...]
    by_score: tuple[ScoreCounts, ...]

    def __post_init__(self) -> None:
        if missing := sorted({"0.02", "0.5"} - set(self.ap)):
            raise ValueError(f"the field ap.{missing[0]} is missing")


@dataclass(frozen=True)
class DriftedImage(JudgedImage):
    """One image of a comparison. Its protocols are `ap_0.02` and `ap_0.5`, named for the truth's lowest score."""

    matched: int
    iou_mean: float | None
    landmark_shift_mean_share: float | None


@dataclass(frozen=True)
class Comparison:
    """One artifact against one reference, both by name, over all images."""

    reference: str
    artifact: str
    tensors: tuple[TensorDrift, ...]
    detections: DetectionDrift
    missed: tuple[LostFace, ...]
    invented: tuple[LostFace, ...]
    per_image: tuple[DriftedImage, ...]


@dataclass(frozen=True)
class WorstImage:
    """An image that drifted much, with the artifact that drifted most there, and the faces of both sides.

    `visible_difference` is what a viewer would see: the scores of faces missed or invented, plus 1 − IoU of each
    matched pair.
    """

    reference: str
    artifact: str
    image: str
    visible_difference: float
    reference_faces: tuple[FaceRecord, ...]
    artifact_faces: tuple[FaceRecord, ...]


@dataclass(frozen=True)
class LayerDrift:
    """One layer's signal-to-noise ratios.

    `introduced_sqnr_db` is of the error that the layer itself makes, given the artifact's own input to it;
    `accumulated_sqnr_db` of all error from the image up to here.
    """

    layer: str
    type: str
    reads: tuple[str, ...]
    introduced_sqnr_db: float
    accumulated_sqnr_db: float


@dataclass(frozen=True)
class LayerComparison:
    """The layers of one artifact, on `images` images; `introduced_most_in` is the layer with the largest own error."""

    reference: str
    artifact: str
    images: int
    introduced_most_in: str
    layers: tuple[LayerDrift, ...]


@dataclass(frozen=True)
class ShownMesh:
    """One face to draw: x and y of its vertices in pixels of the image, by the reference and by the artifact.

    `percent_of_size` is the mean distance between the two in percent of √(box area).
    """

    which: Literal["worst", "median"]
    image: str
    percent_of_size: float
    reference: tuple[tuple[float, float], ...]
    artifact: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class MeshDrift:
    """The meshes of one artifact against FP32's on ONNX Runtime, over all faces that both find. None without any.

    A face's distance is the mean over its vertices in the image, in percent of √(box area); `pose_difference_degrees`
    is the mean absolute difference of yaw, pitch and roll.
    """

    artifact: str
    faces: int
    mean_percent_of_size: float | None
    median_percent_of_size: float | None
    worst_percent_of_size: float | None
    pose_difference_degrees: float | None
    shown: tuple[ShownMesh, ...] = ()


@dataclass(frozen=True)
class DriftResult:
    """Every artifact of a bundle against FP32. `input_px` is (width, height) of the network's input.

    `layers` and `meshes` are empty and `identity` is None where they were not measured.
    """

    kind: Literal["drift"]
    format_version: Literal[2]
    environment: Mapping[str, str]
    networks: tuple[MeasuredNetwork, ...]
    input_px: tuple[int, int]
    score_threshold: float
    images: ImageSet
    comparisons: tuple[Comparison, ...]
    worst_images: tuple[WorstImage, ...]
    layers: tuple[LayerComparison, ...] = ()
    meshes: tuple[MeshDrift, ...] = ()
    identity: IdentityFloor | None = None
    bundle: BundleOrigin | None = None
