"""Identity under drift: what a recogniser makes of a face aligned by an artifact's landmarks instead of FP32's.

No identity leaves the process that measures: of the embeddings only cosines are kept, unless they are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.ops.faces import Faces

from ..accuracy.average_precision import assign
from ..errors import MeasurementError
from ..inference.faces import FacesFound, arrays_of, faces_of
from ..inference.measurement import Execution, Unreadable, measure_pictures
from ..inference.network_under_test import REFERENCE, NetworkUnderTest, digest_of
from ..inference.open_picture import OpenPicture
from ..inference.result_cache import Arrays
from ..results import FaceRecord
from .crops import Recogniser, check_landmarks, embeddings_of, rows_of, write_embeddings
from .result import Cosines, DriftedFace, IdentityDrift, IdentityFloor, SizeCosines
from .verification import tars

MATCHED_IOU = 0.5
LEAST_SCORE, LEAST_PX = 0.8, 48.0
SIZES = (0.0, 48.0, 64.0, 96.0, 128.0, 192.0, float("inf"))
"""Bounds of the bands by longer side in pixels of the picture."""
WORST_FACES = 8


@dataclass(frozen=True)
class ChosenFaces:
    """Which faces are judged: the reference's from a score and a longer side (pixels of the picture) on.

    The artifact's faces count from `threshold` on: one below is not found.
    """

    least_score: float = LEAST_SCORE
    least_px: float = LEAST_PX
    threshold: float = 0.5


@dataclass(frozen=True)
class IdentityShift:
    """Quantity: cosines between the crops that two networks give of the faces in a picture.

    With `keep`, the embeddings are among the arrays; otherwise they are forgotten.
    """

    reference: NetworkUnderTest
    artifact: NetworkUnderTest
    recogniser: Recogniser
    faces: ChosenFaces
    keep: bool = False

    @property
    def key(self) -> str:
        """See `Quantity`."""
        networks = (self.reference.digest, self.artifact.digest)
        return digest_of("identity", *networks, self.recogniser.key, repr(self.faces), str(self.keep))

    def measure(self, picture: OpenPicture) -> Arrays:
        """The arrays of `Shift`, those of its faces with their side's name before theirs."""
        expected, found = (self._faces(picture, network) for network in (self.reference, self.artifact))
        partner = assign(found.scores, found.boxes, expected.boxes, MATCHED_IOU)
        chosen = _chosen(expected, self.faces)
        matched = np.flatnonzero((partner >= 0) & chosen[partner]) if len(expected) else np.empty(0, np.intp)
        matched = matched[np.argsort(partner[matched])]
        expected_faces, found_faces = rows_of(expected, partner[matched]), rows_of(found, matched)
        # All chosen faces of the reference are embedded, matched or not: once for every artifact.
        rows = np.searchsorted(np.flatnonzero(chosen), partner[matched])
        plain, mirrored = (vectors[rows] for vectors in self._reference_embeddings(picture, rows_of(expected, chosen)))
        other, other_mirrored = (
            embeddings_of(picture, self.recogniser, found_faces, turned) for turned in (False, True)
        )
        arrays = {
            **{f"reference_{name}": array for name, array in arrays_of(expected_faces).items()},
            **{f"artifact_{name}": array for name, array in arrays_of(found_faces).items()},
            "cosines": plain @ other.T,
            "reference_cosines": plain @ plain.T,
            "mirrored": np.sum(plain * other_mirrored, axis=1),
            "reference_mirrored": np.sum(plain * mirrored, axis=1),
            "unmatched": np.array([np.count_nonzero(chosen) - len(matched)]),
        }
        return {**arrays, "reference_embeddings": plain, "artifact_embeddings": other} if self.keep else arrays

    def value(self, arrays: Arrays) -> Shift:
        """The cosines and faces."""
        expected, found = (
            faces_of({name.removeprefix(side): array for name, array in arrays.items() if name.startswith(side)})
            for side in ("reference_", "artifact_")
        )
        return Shift(
            expected,
            found,
            arrays["cosines"],
            arrays["reference_cosines"],
            arrays["mirrored"],
            arrays["reference_mirrored"],
            int(arrays["unmatched"][0]),
        )

    def _faces(self, picture: OpenPicture, network: NetworkUnderTest) -> Faces:
        quantity = FacesFound(network)
        faces = picture.once(quantity.key, lambda: quantity.value(quantity.measure(picture)))
        return rows_of(faces, faces.scores >= self.faces.threshold)

    def _reference_embeddings(self, picture: OpenPicture, faces: Faces) -> list[NDArray[np.float64]]:
        key = f"embeddings {self.reference.digest} {self.recogniser.key} {self.faces!r}"
        return picture.once(
            key, lambda: [embeddings_of(picture, self.recogniser, faces, turned) for turned in (False, True)]
        )


@dataclass(frozen=True, eq=False)
class Shift:
    """One picture: n faces by both sides, in the same order, and cosines of their crops.

    `cosines` (n, n) of the reference's crop of each face (rows) and the artifact's of each (columns);
    `reference_cosines` (n, n) among the reference's; `mirrored` and `reference_mirrored` (n,) of the reference's crop
    and the artifact's, or its own, mirrored. `unmatched` faces the artifact did not find.
    """

    reference: Faces
    artifact: Faces
    cosines: NDArray[np.float64]
    reference_cosines: NDArray[np.float64]
    mirrored: NDArray[np.float64]
    reference_mirrored: NDArray[np.float64]
    unmatched: int


def identity_drift(
    recogniser: Recogniser,
    networks: Sequence[NetworkUnderTest],
    files: Mapping[str, Path],
    execution: Execution,
    faces: ChosenFaces | None = None,
    keep: Path | None = None,
) -> IdentityFloor:
    """What `recogniser` makes of every network's faces against those of FP32 on ONNX Runtime.

    `files` are pictures by name; those that cannot be read are left out. `keep` is an .npz file for the embeddings;
    such a run is not cached, so that they are nowhere else. Raises `MeasurementError` when there is nothing to
    compare, or the detector has other landmarks than five.
    """
    faces = faces or ChosenFaces()
    reference = next((network for network in networks if network.artifact == REFERENCE), None)
    others = [network for network in networks if network is not reference]
    if reference is None or not others:
        raise MeasurementError(f"identity compares artifacts with {REFERENCE}, and there is only: {_names(networks)}")
    check_landmarks(reference.spec)
    shifts = [IdentityShift(reference, other, recogniser, faces, keep is not None) for other in others]
    totals = [_Totals(shift) for shift in shifts]
    kept: dict[str, NDArray[np.float64]] = {}
    for outcome in measure_pictures(shifts, files, replace(execution, cache=None) if keep else execution):
        if isinstance(outcome, Unreadable):
            continue
        for total in totals:
            total.add(outcome.name, outcome.value(total.quantity))
            if keep:
                arrays = outcome.arrays[total.quantity.key]
                kept |= {
                    f"{outcome.name}/{network.name}": arrays[f"{side}_embeddings"]
                    for side, network in (("reference", reference), ("artifact", total.quantity.artifact))
                }
    if keep:
        write_embeddings(keep, kept)
    return IdentityFloor(recogniser.record, faces.least_score, faces.least_px, tuple(t.summary() for t in totals))


class _Totals:
    """One artifact over the pictures so far: a few numbers per face and per pair of faces."""

    def __init__(self, quantity: IdentityShift) -> None:
        self.quantity = quantity
        self._shifts: list[tuple[str, Shift]] = []

    def add(self, image: str, shift: Shift) -> None:
        self._shifts.append((image, shift))

    def summary(self) -> IdentityDrift:
        shifts = [shift for _, shift in self._shifts]
        same = _joined([np.diag(shift.cosines) for shift in shifts])
        mirrored = _joined([shift.mirrored for shift in shifts])
        reference_mirrored = _joined([shift.reference_mirrored for shift in shifts])
        impostors, reference_impostors = (
            _joined([cosines[np.triu_indices(len(cosines), 1)] for cosines in matrices])
            for matrices in ([s.cosines for s in shifts], [s.reference_cosines for s in shifts])
        )
        sides = _joined([longer_sides(shift.reference) for shift in shifts])
        return IdentityDrift(
            reference=self.quantity.reference.name,
            artifact=self.quantity.artifact.name,
            unmatched=sum(shift.unmatched for shift in shifts),
            same=cosines_of(same),
            mirrored=cosines_of(mirrored),
            reference_mirrored=cosines_of(reference_mirrored),
            impostors=cosines_of(impostors),
            by_size=tuple(
                SizeCosines(low, None if high == SIZES[-1] else high, cosines_of(same[(sides >= low) & (sides < high)]))
                for low, high in pairwise(SIZES)
                if high > self.quantity.faces.least_px
            ),
            tar=tars(same, impostors),
            tar_mirrored=tars(mirrored, impostors),
            tar_reference_mirrored=tars(reference_mirrored, reference_impostors),
            worst=tuple(sorted(self._drifted(), key=lambda face: face.cosine)[:WORST_FACES]),
        )

    def _drifted(self) -> Iterator[DriftedFace]:
        for image, shift in self._shifts:
            for index, (expected, found) in enumerate(zip(shift.reference, shift.artifact, strict=True)):
                records = (FaceRecord(face.score, face.box, face.landmarks) for face in (expected, found))
                yield DriftedFace(image, float(shift.cosines[index, index]), *records)


def cosines_of(values: NDArray[np.float64]) -> Cosines:
    """Number and percentiles of cosines (n,)."""
    if not len(values):
        return Cosines(0, None, None, None, None, None)
    return Cosines(len(values), *np.percentile(values, (1.0, 5.0, 50.0, 95.0, 99.0)).tolist())


def longer_sides(faces: Faces) -> NDArray[np.float64]:
    """Longer sides (n,) of the boxes in pixels of the picture."""
    return np.asarray((faces.boxes[:, 2:] - faces.boxes[:, :2]).max(axis=1))


def _chosen(faces: Faces, wanted: ChosenFaces) -> NDArray[np.bool_]:
    return np.asarray((faces.scores >= wanted.least_score) & (longer_sides(faces) >= wanted.least_px))


def _joined(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    return np.concatenate(parts) if parts else np.empty(0)


def _names(networks: Sequence[NetworkUnderTest]) -> str:
    return ", ".join(network.name for network in networks)
