"""Raw outputs to faces: candidates, decoding, non-maximum suppression, and back to the frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, SupportsFloat

import numpy as np
from numpy.typing import NDArray

from ..errors import ThresholdError
from ..spec import ScoreCoding, Spec
from .candidates import BOX, BOX_CODINGS, LANDMARKS, RAW_LIMIT, find_candidates
from .faces import Face, Faces
from .landmarks import blend_landmarks, decode_landmarks
from .letterbox import Letterbox
from .nms import Suppression, non_maximum_suppression, suppress
from .quantization import QuantParams, RawOutput
from .scores import sigmoid

__all__ = [
    "RAW_LIMIT",
    "UNBOUNDED",
    "Bounds",
    "Face",
    "Faces",
    "QuantParams",
    "RawOutput",
    "check_thresholds",
    "decode_boxes",
    "decode_landmarks",
    "non_maximum_suppression",
    "postprocess",
]


BLENDED_SCORE = 0.5
"""A suppressed candidate of at least this score counts towards the landmarks of the face that suppressed it."""


class Bounds(NamedTuple):
    """Bounds on the work of one frame: the best `max_candidates` enter suppression, the best `max_faces` are returned.

    The defaults are those that implementations of RetinaFace are evaluated with. None means no bound.
    """

    max_candidates: int | None = 5000
    max_faces: int | None = 750


UNBOUNDED = Bounds(None, None)


class Selection(NamedTuple):
    """Which faces of a frame are wanted: their least score, how far they may overlap, and how many at most."""

    score_threshold: float
    iou_threshold: float
    bounds: Bounds


def postprocess(
    spec: Spec,
    outputs: Sequence[RawOutput],
    quant_params: Sequence[QuantParams],
    placement: Letterbox,
    score_threshold: float = 0.5,
    iou_threshold: float = 0.4,
    bounds: Bounds = UNBOUNDED,
) -> Faces:
    """Decode one frame's raw outputs.

    `outputs` and `quant_params` are in the order of `spec.outputs`. A face is kept when its score is at least
    `score_threshold` and no better face overlaps it by an intersection over union above `iou_threshold`. Its landmarks
    are the mean, weighted by score, of its own and of those that it suppressed with a score of `BLENDED_SCORE` or more,
    unless the contract says that they are its own alone. Candidates with a value that is not finite, or beyond
    `RAW_LIMIT`, never make a face, nor do boxes without an area. Raises `ThresholdError` when a threshold is not in 0…1
    or a bound is below 1.
    """
    check_thresholds(score_threshold, iou_threshold, bounds)
    mask = np.empty(spec.level_bounds[-1], np.bool_)
    return faces_of(spec, outputs, quant_params, placement, Selection(score_threshold, iou_threshold, bounds), mask)


def faces_of(
    spec: Spec,
    outputs: Sequence[RawOutput],
    quant_params: Sequence[QuantParams],
    placement: Letterbox,
    selection: Selection,
    mask: NDArray[np.bool_],
) -> Faces:
    """What `postprocess` gives, its thresholds having been checked.

    `mask` is working memory, bool of shape (anchors,): nothing is allocated but for the candidates.
    """
    score_threshold, iou_threshold, bounds = selection
    anchor, values = find_candidates(spec, outputs, quant_params, score_threshold, bounds.max_candidates, mask)
    corners = decode_boxes(spec, anchor, values[BOX].T)
    suppression = suppress(corners, iou_threshold, bounds.max_faces)
    scale = np.array([placement.scale_x, placement.scale_y, placement.scale_x, placement.scale_y])
    scores = sigmoid(values[0]) if spec.score is ScoreCoding.LOGIT else values[0]
    return Faces(
        scores=scores[suppression.kept],
        boxes=corners[suppression.kept] * scale,
        landmarks=_landmarks(spec, anchor, values, scores, suppression) * scale[:2],
    )


def _landmarks(
    spec: Spec,
    anchor: NDArray[np.intp],
    values: NDArray[np.float64],
    scores: NDArray[np.float64],
    suppression: Suppression,
) -> NDArray[np.float64]:
    """Landmarks (k, spec.landmarks, 2) of the faces kept, in pixels of the input."""
    kept, owner = suppression
    if not spec.landmarks:
        return np.zeros((len(kept), 0, 2))
    member = kept
    if spec.blend_landmarks and len(kept) < len(owner):
        heard = (scores >= BLENDED_SCORE) & (owner >= 0)
        heard[kept] = True
        member = heard.nonzero()[0]
        member = member[owner[member].argsort(kind="stable")]
    landmark = values[LANDMARKS : LANDMARKS + 2 * spec.landmarks, member].T
    points = decode_landmarks(spec, anchor[member], landmark)
    return points if len(member) == len(kept) else blend_landmarks(points, scores[member], owner[member])


def decode_boxes(spec: Spec, anchor: NDArray[np.intp], box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners x1, y1, x2, y2 (n, 4) in pixels of the input, of the raw values `box` (n, 4) at anchors `anchor` (n,)."""
    corners: NDArray[np.float64] = BOX_CODINGS[spec.box_coding].corners(spec, anchor, box.T)
    return corners.T


def check_thresholds(score_threshold: float, iou_threshold: float, bounds: Bounds = UNBOUNDED) -> None:
    """Raise `ThresholdError` unless both are numbers in 0…1, and bounds are 1 or more."""
    for name, value in (("score", score_threshold), ("IoU", iou_threshold)):
        try:
            number = float(value) if isinstance(value, (float, int, SupportsFloat)) else -1.0  # protocols are slow
        except (TypeError, ValueError):  # an array of several numbers
            number = -1.0
        if not 0.0 <= number <= 1.0:
            raise ThresholdError(f"the {name} threshold must be between 0 and 1, not {value!r}")
    for name, most in zip(("candidates", "faces"), bounds, strict=True):
        if most is not None and (not isinstance(most, int) or most < 1):
            raise ThresholdError(f"the most {name} must be 1 or more, or None for no bound, not {most!r}")
