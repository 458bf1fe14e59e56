"""Candidates: the anchors whose score reaches the threshold, with their raw values, best first.

Only candidates are dequantised, in float64. Order is defined: higher score first, then the lower anchor index, so that
results never depend on a sort's internals.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..spec import BoxCoding, ScoreCoding, Spec
from . import box_centre_size, box_distances
from .quantization import QuantParams, RawOutput
from .scores import least_logit, product, reaches

# A raw value beyond this is no prediction but damage, and drops its candidate, as NaN and infinity do; a trained
# network stays far below.
RAW_LIMIT = 500.0
USUAL = 100.0
"""No raw value up to this is damage, in any coding: one comparison for nearly every frame."""
BOX = slice(1, 5)
LANDMARKS = 5
"""First row of the landmarks among a candidate's values."""
BOX_CODINGS = {BoxCoding.CENTRE_SIZE: box_centre_size, BoxCoding.DISTANCES: box_distances}


def find_candidates(
    spec: Spec,
    outputs: Sequence[RawOutput],
    params: Sequence[QuantParams],
    score_threshold: float,
    most: int | None,
    mask: NDArray[np.bool_],
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The candidates of one frame, best first, at most `most`: their anchors (n,) and values (channels, n).

    Values are by head, dequantised; the first of them, by which they are ordered, is the logit, or the score where it
    is face × object. `mask` is working memory, bool (anchors,).
    """
    levels, bounds = len(spec.strides), spec.level_bounds
    least = least_logit(spec, score_threshold)
    for level in range(levels):
        reaches(outputs[level].reshape(-1), params[level], least, mask[bounds[level] : bounds[level + 1]])
    anchor = mask.nonzero()[0]
    raw = _gather(spec, outputs, params, anchor)
    usable = _usable(spec, raw)
    if usable is not None:
        anchor, raw = anchor[usable], raw[:, usable]
    if spec.score is ScoreCoding.FACE_OBJECT:
        raw[0] = product(raw[0], raw[-1])
        reached = raw[0] >= score_threshold
        anchor, raw = anchor[reached], raw[:, reached]
    order = (-raw[0]).argsort(kind="stable")[:most]  # anchors ascend, and equal ranks stay in that order
    return anchor[order], raw[:, order]


def _gather(
    spec: Spec, outputs: Sequence[RawOutput], params: Sequence[QuantParams], anchor: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Real values (channels, n) of every head at ascending anchors (n,)."""
    levels, starts, heads = len(spec.strides), spec.level_bounds, spec.heads
    parts = anchor.searchsorted(starts).tolist()
    raw = np.empty((sum(head.channels for head in heads), len(anchor)))
    for level, (first, last) in enumerate(pairwise(parts)):
        if first == last:
            continue
        index = anchor[first:last] - starts[level]
        row = 0
        for number, head in enumerate(heads):
            output = outputs[number * levels + level]
            values = raw[row : row + head.channels, first:last]
            row += head.channels
            values[:] = output.reshape(-1, head.channels).take(index, axis=0).T
            if output.dtype != np.float32:
                quantised = params[number * levels + level]
                values -= quantised.zero_point
                values *= quantised.scale
    return raw


def _usable(spec: Spec, raw: NDArray[np.float64]) -> NDArray[np.bool_] | None:
    """Which candidates have no damaged value and a box with an area; None if all have."""
    coding = BOX_CODINGS[spec.box_coding]
    size = np.abs(raw)
    usable = None
    if not size.max(initial=0.0) <= USUAL:  # not `>`, which NaN would pass
        limits = np.array(coding.raw_limits(spec, RAW_LIMIT))[:, np.newaxis]
        usable = (size.max(axis=0) <= RAW_LIMIT) & (size[BOX] <= limits).all(axis=0)
    has_area = coding.has_area(raw[BOX])
    if has_area is None or usable is None:
        return usable if has_area is None else has_area
    return np.asarray(usable & has_area)
