"""Verification on labelled pairs: one face of every picture, templates as means, one cosine per pair and artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..inference.faces import FacesFound
from ..inference.measurement import Execution, Unreadable, image_set, measure_pictures
from ..inference.network_under_test import NetworkUnderTest, digest_of
from ..inference.open_picture import OpenPicture
from ..inference.result_cache import Arrays
from ..inference.scales import checked_scale
from ..results import FORMAT_VERSION
from ..versions import environment
from .crops import Recogniser, check_landmarks, embeddings_of, rows_of, write_embeddings
from .embedder import unit
from .pairs import Pair
from .result import RocCurve, VerificationFigures, VerificationResult
from .verification import fold_accuracy, folds_in_order, roc, tars

LARGEST: Literal["largest"] = "largest"
BEST: Literal["highest score"] = "highest score"
ROC_POINTS = 200

FaceChoice = Literal["largest", "highest score"]


@dataclass(frozen=True)
class VerificationProtocol:
    """Which face stands for a picture of several, from which score on, at which scale pictures are shown."""

    face: FaceChoice = LARGEST
    score_threshold: float = 0.5
    scale: str = "input"


@dataclass(frozen=True)
class FaceEmbedding:
    """Quantity: the embedding (1, values) of the face that stands for a picture; (0, values) where there is none."""

    network: NetworkUnderTest
    recogniser: Recogniser
    protocol: VerificationProtocol

    @property
    def key(self) -> str:
        """See `Quantity`."""
        return digest_of("embedding", self.network.digest, self.recogniser.key, repr(self.protocol))

    def measure(self, picture: OpenPicture) -> Arrays:
        """The array `embedding`."""
        quantity = FacesFound(self.network, self.protocol.scale)
        faces = quantity.value(quantity.measure(picture))
        faces = rows_of(faces, faces.scores >= self.protocol.score_threshold)
        if len(faces) > 1:
            sizes = np.prod(faces.boxes[:, 2:] - faces.boxes[:, :2], axis=1)
            chosen = int(np.argmax(sizes if self.protocol.face == LARGEST else faces.scores))
            faces = rows_of(faces, np.array([chosen]))
        return {"embedding": embeddings_of(picture, self.recogniser, faces)}

    def value(self, arrays: Arrays) -> NDArray[np.float64]:
        """The embedding."""
        return np.asarray(arrays["embedding"], np.float64)


@dataclass(frozen=True)
class LabelledPairs:
    """Pairs, and what a result calls their list."""

    name: str
    pairs: tuple[Pair, ...]

    @property
    def files(self) -> dict[str, Path]:
        """Every picture of the pairs once, by its path as written."""
        paths = chain.from_iterable((*pair.first, *pair.second) for pair in self.pairs)
        return {str(path): path for path in paths}


def verify(
    recogniser: Recogniser,
    networks: Sequence[NetworkUnderTest],
    labelled: LabelledPairs,
    execution: Execution,
    protocol: VerificationProtocol | None = None,
    keep: Path | None = None,
) -> VerificationResult:
    """Verification on labelled pairs by every network's landmarks.

    Nothing is cached, since embeddings are identities; `keep` is an .npz file for them. A picture that cannot be read
    counts as one without a face, and is named. Raises `MeasurementError` when none can be read, or the detector has
    other landmarks than five.
    """
    spec = networks[0].spec
    check_landmarks(spec)
    protocol = protocol or VerificationProtocol()
    shown = replace(protocol, scale=checked_scale(spec, protocol.scale))
    quantities = {network.name: FaceEmbedding(network, recogniser, shown) for network in networks}
    found: dict[str, dict[str, NDArray[np.float64]]] = {network.name: {} for network in networks}
    digests: dict[str, str] = {}
    skipped: list[Unreadable] = []
    for outcome in measure_pictures(list(quantities.values()), labelled.files, replace(execution, cache=None)):
        if isinstance(outcome, Unreadable):
            skipped.append(outcome)
            continue
        digests[outcome.name] = outcome.digest
        for name, quantity in quantities.items():
            if len(embedding := outcome.value(quantity)):
                found[name][outcome.name] = embedding[0]
    images = image_set(digests, skipped)
    if keep:
        write_embeddings(keep, {f"{name}/{key}": v for name, rows in found.items() for key, v in rows.items()})
    same = np.array([pair.same for pair in labelled.pairs])
    return VerificationResult(
        kind="verification",
        format_version=FORMAT_VERSION,
        environment=environment(),
        networks=tuple(network.record for network in networks),
        embedder=recogniser.record,
        pairs=labelled.name,
        genuine=int(np.count_nonzero(same)),
        impostors=int(np.count_nonzero(~same)),
        folds="in order" if labelled.pairs[0].fold is None else "given",
        face=protocol.face,
        scale=protocol.scale,
        input_px=(spec.width, spec.height),
        score_threshold=protocol.score_threshold,
        images=images,
        results=tuple(figures_of_pairs(name, labelled, rows) for name, rows in found.items()),
    )


def figures_of_pairs(
    artifact: str, labelled: LabelledPairs, embeddings: Mapping[str, NDArray[np.float64]]
) -> VerificationFigures:
    """The figures of one artifact from the embeddings (values,) of those pictures in which a face was found."""
    pairs = labelled.pairs
    same = np.array([pair.same for pair in pairs])
    scores = np.array([score_of(pair, embeddings) for pair in pairs])
    given = [pair.fold for pair in pairs]
    folds = folds_in_order(same) if None in given else np.array(given, np.intp)
    far, tar = roc(scores, same)
    thinned = np.unique(np.linspace(0, len(far) - 1, ROC_POINTS).astype(np.intp))
    unscored = np.isnan(scores)
    return VerificationFigures(
        artifact=artifact,
        pictures_without_face=len(labelled.files.keys() - embeddings.keys()),
        genuine_without_score=int(np.count_nonzero(unscored & same)),
        impostors_without_score=int(np.count_nonzero(unscored & ~same)),
        accuracy=fold_accuracy(scores, same, folds),
        tar=tars(scores[same], scores[~same]),
        roc=RocCurve(tuple(far[thinned].tolist()), tuple(tar[thinned].tolist())),
    )


def score_of(pair: Pair, embeddings: Mapping[str, NDArray[np.float64]]) -> float:
    """The cosine of the pair's templates, means of their pictures' embeddings; NaN where one has no face."""
    templates = []
    for paths in (pair.first, pair.second):
        found = [embeddings[str(path)] for path in paths if str(path) in embeddings]
        if not found:
            return float("nan")
        templates.append(np.mean(found, axis=0))
    first, second = unit(np.stack(templates))
    return float(first @ second)
