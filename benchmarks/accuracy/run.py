"""Accuracy: every artifact of a bundle, or any detector's predictions, on an annotated set at a stated scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from retinaface_edge.runtime.ops.postprocess import Faces
from retinaface_edge.runtime.spec import Spec

from ..errors import MeasurementError
from ..inference.faces import FacesFound
from ..inference.measurement import Execution, Measured, Unreadable, image_set, measure_pictures
from ..inference.network_under_test import REFERENCE, NetworkUnderTest
from ..inference.scales import checked_scale
from ..results import FORMAT_VERSION
from ..versions import environment
from .datasets import WIDER, Dataset
from .protocol import LEAST_FACE_PX, Protocol, Tally
from .result import Accuracy, DatasetRecord, EvalResult
from .wider_files import read_ground_truth, read_predictions, text_file


def evaluate(
    networks: Sequence[NetworkUnderTest],
    dataset: Dataset,
    execution: Execution,
    *,
    scale: str,
    score_threshold: float = 0.5,
    least_face_px: float = LEAST_FACE_PX,
    each: Callable[[str, str, Faces], None] | None = None,
) -> EvalResult:
    """Evaluate `networks` on a set at a scale of `scales.SCALES`.

    `each(network's name, picture's name, faces)` is called for every picture, for instance to write prediction files.
    Raises `MeasurementError` when no picture can be read, or the scale does not fit.
    """
    spec = networks[0].spec
    protocol = Protocol(dataset, score_threshold, least_face_px)
    pictures = {picture.name: picture for picture in dataset.pictures}
    faces_found = {network.name: FacesFound(network, checked_scale(spec, scale)) for network in networks}
    tallies = {network.name: Tally() for network in networks}
    digests: dict[str, str] = {}
    skipped: list[Unreadable] = []
    files = {name: picture.path for name, picture in pictures.items()}
    for outcome in measure_pictures(list(faces_found.values()), files, execution):
        if isinstance(outcome, Unreadable):
            skipped.append(outcome)
            continue
        digests[outcome.name] = outcome.digest
        for name, quantity in faces_found.items():
            faces = outcome.value(quantity)
            protocol.add(tallies[name], pictures[outcome.name], faces, frame_scale(spec, outcome))
            if each is not None:
                each(name, outcome.name, faces)
    return EvalResult(
        kind="eval",
        format_version=FORMAT_VERSION,
        environment=environment(),
        networks=tuple(network.record for network in networks),
        reference=str(REFERENCE),
        dataset=_record(protocol),
        scale=scale,
        input_px=(spec.width, spec.height),
        score_threshold=score_threshold,
        images=image_set(digests, skipped),
        results=_results(protocol, tallies),
    )


def evaluate_files(widerface: Path, predictions: Path) -> EvalResult:
    """The same result for the text files in `predictions` that some detector wrote, at a scale only it knows.

    Judged are the pictures that are in `widerface`; where no picture is there, those that have predictions. Sizes are
    in pixels of the picture. Raises `MeasurementError`.
    """
    annotated = read_ground_truth(widerface)
    there = [picture for picture in annotated if picture.path.is_file()]
    judged = there or [picture for picture in annotated if (predictions / text_file(picture.name)).is_file()]
    if not judged:
        raise MeasurementError(
            f"{predictions} holds no predictions; expected are files EVENT/NAME.txt, one file per picture"
        )
    found, absent = read_predictions(predictions, [picture.name for picture in judged])
    note = "" if len(judged) == len(annotated) else f"{len(judged)} of {len(annotated)} pictures are there"
    protocol = Protocol(Dataset("WIDER FACE val", WIDER, tuple(judged), note))
    tally = Tally()
    for picture in judged:
        protocol.add(tally, picture, found[picture.name], 1.0)
    name = predictions.name
    return EvalResult(
        kind="eval",
        format_version=FORMAT_VERSION,
        environment=environment(),
        networks=(),
        reference=name,
        dataset=_record(protocol),
        scale="as predicted",
        input_px=None,
        score_threshold=protocol.score_threshold,
        images=image_set(dict.fromkeys(tally.names, ""), []),
        results=_results(protocol, {name: tally}),
        predictions=f"{len(absent)} of {len(judged)} pictures have no file, and count as having no detections",
    )


def frame_scale(spec: Spec, picture: Measured) -> float:
    """Picture pixels per input pixel, when the whole picture is shown."""
    return max(picture.size[0] / spec.width, picture.size[1] / spec.height)


def _record(protocol: Protocol) -> DatasetRecord:
    dataset = protocol.dataset
    least = None if dataset.protocol == WIDER else float(protocol.least_face_px)
    return DatasetRecord(dataset.name, dataset.protocol, dataset.note, least)


def _results(protocol: Protocol, tallies: Mapping[str, Tally]) -> tuple[Accuracy, ...]:
    first = tallies.get(str(REFERENCE))
    return tuple(protocol.accuracy(name, tally, first) for name, tally in tallies.items())
