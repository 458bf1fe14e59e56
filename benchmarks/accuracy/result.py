"""Result types of `eval` and `compare`, as written to files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import numpy as np

from ..results import BundleOrigin, ImageSet, MeasuredNetwork
from .average_precision import LEFT_OUT, RIGHT, WRONG, Judged

SCORE_DIGITS = 6
LETTERS = {RIGHT: "r", WRONG: "w", LEFT_OUT: "o"}
VERDICTS = {letter: verdict for verdict, letter in LETTERS.items()}


@dataclass(frozen=True)
class Verdicts:
    """One protocol's judgement of an image: how many faces count, and a letter for each detection, best score first.

    The letters are `r` (right), `w` (wrong) and `o` (left out: the detection counts neither way).
    """

    faces: int
    verdicts: str

    def __post_init__(self) -> None:
        if unknown := set(self.verdicts) - set(VERDICTS):
            raise ValueError(f"the verdicts have {min(unknown)!r}, which is not one of: {', '.join(VERDICTS)}")


@dataclass(frozen=True)
class JudgedImage:
    """The detections of one image under several protocols: their scores, best first, and verdicts by protocol."""

    image: str
    scores: tuple[float, ...]
    protocols: Mapping[str, Verdicts]

    def __post_init__(self) -> None:
        for name, protocol in self.protocols.items():
            if len(protocol.verdicts) != len(self.scores):
                raise ValueError(
                    f"{name} has {len(protocol.verdicts)} verdicts for the {len(self.scores)} scores of {self.image}"
                )

    def judged(self, protocol: str) -> Judged:
        """What `protocol` made of the image, as arrays."""
        one = self.protocols[protocol]
        verdicts = np.array([VERDICTS[letter] for letter in one.verdicts], np.int8)
        return Judged(np.array(self.scores, np.float64), verdicts, one.faces)


def scores_of(protocols: Mapping[str, Judged]) -> tuple[float, ...]:
    """The scores of one image, best first. All protocols judge the same detections."""
    scores = next(iter(protocols.values())).scores
    return tuple(round(score, SCORE_DIGITS) for score in scores.tolist())


def verdicts_of(protocols: Mapping[str, Judged]) -> dict[str, Verdicts]:
    """The verdicts of one image by protocol."""
    return {
        name: Verdicts(judged.faces, "".join(LETTERS[verdict] for verdict in judged.verdicts.tolist()))
        for name, judged in protocols.items()
    }


@dataclass(frozen=True)
class DatasetRecord:
    """The annotated set: its protocol, a note on what of it is there, and from which size faces count.

    `least_face_px` is in pixels of the network's input; None under the WIDER FACE protocol, which has its own lists.
    """

    name: str
    protocol: str
    note: str
    least_face_px: float | None


@dataclass(frozen=True)
class SizeRecall:
    """Faces whose shorter side is in [from_px, to_px) input pixels, and how many of them were found."""

    from_px: float
    to_px: float | None
    faces: int
    found: int


@dataclass(frozen=True)
class LandmarkAccuracy:
    """Faces with annotated landmarks, those found, and the normalised mean error (NME) of these.

    The error of a face is the mean distance of its five points as a share of √(width·height) of the annotated box
    (arXiv 1905.00641, section 4.4). `failures` have an error above 0.1.
    """

    annotated: int
    found: int
    nme_mean: float | None
    nme_median: float | None
    failures: int


@dataclass(frozen=True)
class Curve:
    """Points of a precision–recall curve."""

    recall: tuple[float, ...]
    precision: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.recall) != len(self.precision):
            raise ValueError(f"{len(self.recall)} values of recall and {len(self.precision)} of precision")


@dataclass(frozen=True)
class Accuracy:
    """One network, or one folder of predictions. Average precision, faces and curves are by setting of the protocol.

    `ap` and `recall` are in 0…1, None without any face. `worst_image` is where the reference finds most faces more.
    """

    artifact: str
    ap: Mapping[str, float | None]
    faces: Mapping[str, int]
    recall: float | None
    recall_by_size: tuple[SizeRecall, ...]
    landmarks: LandmarkAccuracy | None
    curves: Mapping[str, Curve]
    worst_image: str
    per_image: tuple[JudgedImage, ...]


@dataclass(frozen=True)
class EvalResult:
    """Accuracy on an annotated set. `input_px` is (width, height); None where the detector is not known."""

    kind: Literal["eval"]
    format_version: Literal[2]
    environment: Mapping[str, str]
    networks: tuple[MeasuredNetwork, ...]
    reference: str
    dataset: DatasetRecord
    scale: str
    input_px: tuple[int, int] | None
    score_threshold: float
    images: ImageSet
    results: tuple[Accuracy, ...]
    predictions: str | None = None
    """A note on prediction files made elsewhere: how many are absent."""
    bundle: BundleOrigin | None = None


class Verdict(str, Enum):
    """What a difference is: none at all, noise, or for the better or the worse."""

    SAME = "same"
    NOISE = "noise"
    BETTER = "better"
    WORSE = "worse"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Change:
    """One average precision on both sides, in 0…1, and the 95 % interval of b − a; `verdict` is about b."""

    artifact: str
    protocol: str
    ap_a: float | None
    ap_b: float | None
    difference_low: float | None
    difference_high: float | None
    verdict: Verdict


@dataclass(frozen=True)
class ImagesInCommon:
    """How many images were compared, and how many each side has."""

    count: int
    in_a: int
    in_b: int


@dataclass(frozen=True)
class CompareResult:
    """What changed between two results of the kind `of`."""

    kind: Literal["compare"]
    format_version: Literal[2]
    environment: Mapping[str, str]
    of: Literal["drift", "eval"]
    images: ImagesInCommon
    notes: tuple[str, ...]
    changes: tuple[Change, ...]
