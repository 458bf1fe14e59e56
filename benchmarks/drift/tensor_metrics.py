"""Drift of tensors: each raw output of an artifact against the same output of its reference.

Never one figure for all outputs together: among concatenated boxes, scores and landmarks a ruined score tensor hides
behind the boxes' larger values. And every figure twice: over all anchors, and over the anchors that either network
gives a score of 0.02 or more. INT8 scores are clipped below that on purpose, and no face is ever made of the others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.ops.postprocess import QuantParams, RawOutput
from retinaface_edge.runtime.spec import ScoreCoding, Spec

from ..inference.network_under_test import NetworkUnderTest, digest_of
from ..inference.open_picture import OpenPicture
from ..inference.result_cache import Arrays
from .result import TensorDrift

CANDIDATE_SCORE = 0.02
HIGHEST_SQNR_DB = 150.0
"""What equal tensors are given instead of infinity."""

ANCHORS: tuple[Literal["all", "candidates"], ...] = ("all", "candidates")
SUMS = ("count", "reference_squared", "squared", "product", "error_squared", "largest_difference")


@dataclass(frozen=True)
class TensorSums:
    """Quantity: `output_sums` of an artifact against its reference, on the whole picture."""

    reference: NetworkUnderTest
    artifact: NetworkUnderTest

    @property
    def key(self) -> str:
        """See `Quantity`."""
        return digest_of("tensors", self.reference.digest, self.artifact.digest)

    def measure(self, picture: OpenPicture) -> Arrays:
        """The array `sums`."""
        both = (picture.outputs(self.reference), picture.outputs(self.artifact))
        reference, artifact = (as_real(outputs.raw, outputs.quant_params) for outputs in both)
        return {"sums": output_sums(self.artifact.spec, reference, artifact)}

    def value(self, arrays: Arrays) -> NDArray[np.float64]:
        """The sums."""
        return arrays["sums"]


def as_real(outputs: Sequence[RawOutput], quant_params: Sequence[QuantParams]) -> list[NDArray[np.float64]]:
    """Raw outputs as copies in float64, integers dequantised: real = (integer − zero point)·scale."""
    return [
        (raw.astype(np.float64) - quant.zero_point) * quant.scale
        for raw, quant in zip(outputs, quant_params, strict=True)
    ]


def output_sums(
    spec: Spec, reference: Sequence[NDArray[np.float64]], outputs: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """The sums of one image that every figure is made of: (outputs, 2, 6), axes as `spec.outputs`, `ANCHORS`, `SUMS`.

    `reference` and `outputs` are float64, in the order of `spec.outputs`.
    """
    candidates = [a | b for a, b in zip(_candidates(spec, reference), _candidates(spec, outputs), strict=True)]
    by_stride = dict(zip(spec.strides, candidates, strict=True))
    sums = np.zeros((len(spec.outputs), len(ANCHORS), len(SUMS)))
    for row, output, r, a in zip(sums, spec.outputs, reference, outputs, strict=True):
        chosen = by_stride[output.stride]
        rows_r, rows_a = r.reshape(len(chosen), -1), a.reshape(len(chosen), -1)
        row[0] = _sums(rows_r.ravel(), rows_a.ravel())
        row[1] = _sums(rows_r[chosen].ravel(), rows_a[chosen].ravel())
    return sums


def _candidates(spec: Spec, outputs: Sequence[NDArray[np.float64]]) -> list[NDArray[np.bool_]]:
    """Which anchors have a score of `CANDIDATE_SCORE` or more, (anchors,) for each stride."""
    raw = {(output.head, output.stride): array.reshape(-1) for output, array in zip(spec.outputs, outputs, strict=True)}
    if spec.score is ScoreCoding.LOGIT:
        least = math.log(CANDIDATE_SCORE / (1.0 - CANDIDATE_SCORE))
        return [raw["score", stride] >= least for stride in spec.strides]
    # 1 / (1 + e^-x) · 1 / (1 + e^-y) is the square of the score.
    return [
        (1.0 + np.exp(-raw["score", stride])) * (1.0 + np.exp(-raw["object", stride])) <= CANDIDATE_SCORE**-2
        for stride in spec.strides
    ]


class TensorTotals:
    """Adds up `output_sums` image by image; holds nothing that grows with their number."""

    def __init__(self, spec: Spec) -> None:
        self._spec = spec
        self._sums = np.zeros((len(spec.outputs), len(ANCHORS), len(SUMS)))
        self._worst = np.full(self._sums.shape[:2], math.inf)
        self._images = np.full(self._sums.shape[:2], "", dtype=object)

    def add(self, image: str, sums: NDArray[np.float64]) -> None:
        """Count in one image."""
        largest = np.maximum(self._sums[..., 5], sums[..., 5])
        self._sums += sums
        self._sums[..., 5] = largest
        for index in np.ndindex(*self._worst.shape):
            sqnr = sqnr_db(sums[index][1], sums[index][4])
            if sums[index][0] and sqnr < self._worst[index]:
                self._worst[index], self._images[index] = sqnr, image

    def figures(self) -> tuple[TensorDrift, ...]:
        """Every output's figures over the images so far."""
        return tuple(self._figure(output, anchors) for output, anchors in np.ndindex(*self._worst.shape))

    def _figure(self, index: int, anchors: int) -> TensorDrift:
        count, r2, a2, ra, e2, largest = self._sums[index, anchors].tolist()
        output, seen = self._spec.outputs[index], count > 0
        return TensorDrift(
            output=output.name,
            head=output.head,
            stride=output.stride,
            anchors=ANCHORS[anchors],
            count=int(count),
            sqnr_db=sqnr_db(r2, e2) if seen else None,
            cosine=ra / math.sqrt(r2 * a2) if r2 * a2 > 0 else None,
            gain=ra / r2 if r2 > 0 else None,
            largest_difference=largest if seen else None,
            worst_image=str(self._images[index, anchors]),
            worst_sqnr_db=float(self._worst[index, anchors]) if seen else None,
        )


def sqnr_db(signal: float, noise: float) -> float:
    """10·log₁₀(signal / noise), within ±`HIGHEST_SQNR_DB`."""
    if noise <= 0.0:
        return HIGHEST_SQNR_DB
    if signal <= 0.0:
        return -HIGHEST_SQNR_DB
    return float(np.clip(10.0 * math.log10(signal / noise), -HIGHEST_SQNR_DB, HIGHEST_SQNR_DB))


def _sums(r: NDArray[np.float64], a: NDArray[np.float64]) -> list[float]:
    error = a - r
    largest = float(np.abs(error).max()) if len(r) else 0.0
    # Not by BLAS, whose sums depend on its number of threads.
    products = [float(np.sum(x * y)) for x, y in ((r, r), (a, a), (r, a), (error, error))]
    return [float(len(r)), *products, largest]
