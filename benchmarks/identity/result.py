"""Result types of identity: the floor of `drift --embedder`, and `eval --pairs`, as they are written to files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from retinaface_edge.runtime.spec import Colour

from ..results import BundleOrigin, FaceRecord, ImageSet, MeasuredNetwork
from .verification import FoldAccuracy, TarAtFar


@dataclass(frozen=True)
class EmbedderRecord:
    """The recogniser: the name and SHA-256 of its file, and its input, (x - mean) / std in squares of `size_px`.

    `assumed`: normalisation and colour order are the defaults, which no file states.
    """

    name: str
    digest: str
    size_px: int
    mean: float
    std: float
    colour: Colour
    assumed: bool


@dataclass(frozen=True)
class Cosines:
    """Cosines of pairs of embeddings: how many, and their percentiles. None without any."""

    pairs: int
    p01: float | None
    p05: float | None
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True)
class SizeCosines:
    """`Cosines` of faces whose longer side is in [from_px, to_px) pixels of the picture."""

    from_px: float
    to_px: float | None
    cosines: Cosines


@dataclass(frozen=True)
class DriftedFace:
    """A face by the reference and by the artifact, and the cosine of its two crops."""

    image: str
    cosine: float
    reference: FaceRecord
    artifact: FaceRecord


@dataclass(frozen=True)
class IdentityDrift:
    """What a recogniser sees of one artifact's drift, over all faces that the reference and the artifact find.

    `same` are cosines of the reference's crop of a face and the artifact's. `mirrored` are those of the reference's
    crop and the artifact's, mirrored, `reference_mirrored` those of the reference's crop and its own, mirrored: what
    is lost without any drift. `impostors` are those of the reference's crop of one face and the artifact's of another
    in the same picture. `tar`, `tar_mirrored` and `tar_reference_mirrored` are at the FARs that the impostors carry;
    for the last, impostors are by the reference alone. `unmatched` faces were found by the reference only.
    """

    reference: str
    artifact: str
    unmatched: int
    same: Cosines
    mirrored: Cosines
    reference_mirrored: Cosines
    impostors: Cosines
    by_size: tuple[SizeCosines, ...]
    tar: tuple[TarAtFar, ...]
    tar_mirrored: tuple[TarAtFar, ...]
    tar_reference_mirrored: tuple[TarAtFar, ...]
    worst: tuple[DriftedFace, ...]


@dataclass(frozen=True)
class IdentityFloor:
    """The floor, over faces that the reference finds from `least_score` and a longer side of `least_px` on.

    Sides are in pixels of the picture, since crops are taken of it.
    """

    embedder: EmbedderRecord
    least_score: float
    least_px: float
    comparisons: tuple[IdentityDrift, ...]


@dataclass(frozen=True)
class RocCurve:
    """Points of a ROC curve."""

    far: tuple[float, ...]
    tar: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.far) != len(self.tar):
            raise ValueError(f"{len(self.far)} values of FAR and {len(self.tar)} of TAR")


@dataclass(frozen=True)
class VerificationFigures:
    """One artifact on labelled pairs. A pair without a score has a template in none of whose pictures a face was found.

    Such a pair is never accepted: it is a genuine pair missed, or an impostor refused. `accuracy` is None where there
    are fewer than two folds. `roc` is thinned.
    """

    artifact: str
    pictures_without_face: int
    genuine_without_score: int
    impostors_without_score: int
    accuracy: FoldAccuracy | None
    tar: tuple[TarAtFar, ...]
    roc: RocCurve


@dataclass(frozen=True)
class VerificationResult:
    """Face verification on labelled pairs.

    `face` says which one stands for a picture of several. `folds` is `given` by the list, or `in order`: ten
    consecutive parts of the genuine pairs and of the impostors.
    """

    kind: Literal["verification"]
    format_version: Literal[2]
    environment: Mapping[str, str]
    networks: tuple[MeasuredNetwork, ...]
    embedder: EmbedderRecord
    pairs: str
    genuine: int
    impostors: int
    folds: Literal["given", "in order"]
    face: Literal["largest", "highest score"]
    scale: str
    input_px: tuple[int, int]
    score_threshold: float
    images: ImageSet
    results: tuple[VerificationFigures, ...]
    bundle: BundleOrigin | None = None
