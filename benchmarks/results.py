"""Result files: versioned JSON with what decided the figures, so that unlike results are not compared unawares."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from retinaface_edge.runtime.io.atomic import write_whole
from retinaface_edge.runtime.ops.postprocess import Faces

from .accuracy.average_precision import LEFT_OUT, RIGHT, WRONG, Judged
from .inference.network_under_test import MeasurementError, Subject, environment

FORMAT_VERSION = 1
KINDS = ("drift", "eval", "compare", "bench")
SCORE_DIGITS = 6
LETTERS = {RIGHT: "r", WRONG: "w", LEFT_OUT: "o"}


def result_header(kind: str, subjects: Sequence[Subject]) -> dict[str, Any]:
    """What every result begins with."""
    return {
        "kind": kind,
        "format_version": FORMAT_VERSION,
        "environment": dict(environment()),
        "artifacts": [
            {
                "name": subject.name,
                "backend": subject.backend,
                "precision": subject.precision,
                "bytes": sum(map(len, subject.files)),
                "digest": subject.digest,
            }
            for subject in subjects
        ],
    }


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result as JSON, whole or not at all."""
    write_whole(path, json.dumps(result, ensure_ascii=False, allow_nan=False) + "\n")


def read_result(path: Path, kinds: Sequence[str] = KINDS) -> dict[str, Any]:
    """Read a result of one of `kinds`. Raises `MeasurementError` when it is none."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MeasurementError(f"{path} is no readable JSON ({error}); give a file that --json wrote") from error
    kind = result.get("kind") if isinstance(result, dict) else None
    if kind not in kinds:
        raise MeasurementError(f"{path} is no result of {' or '.join(kinds)} (its kind is {kind!r})")
    if result.get("format_version") != FORMAT_VERSION:
        raise MeasurementError(
            f"{path} has format {result.get('format_version')!r}, this version reads {FORMAT_VERSION}; measure again"
        )
    return dict(result)


def judged_json(protocols: Mapping[str, Judged]) -> dict[str, Any]:
    """One image's detections under several protocols: scores, best first, and for each protocol a letter a detection.

    All protocols judge the same detections.
    """
    scores = next(iter(protocols.values())).scores
    return {
        "scores": [round(score, SCORE_DIGITS) for score in scores.tolist()],
        "protocols": {
            name: {
                "faces": judged.faces,
                "verdicts": "".join(LETTERS[verdict] for verdict in judged.verdicts.tolist()),
            }
            for name, judged in protocols.items()
        },
    }


def judged_from(image: Mapping[str, Any], protocol: str) -> Judged:
    """One protocol's entry of `judged_json`."""
    numbers = {letter: verdict for verdict, letter in LETTERS.items()}
    fields = image["protocols"][protocol]
    verdicts = np.array([numbers[letter] for letter in fields["verdicts"]], np.int8)
    return Judged(np.array(image["scores"], np.float64), verdicts, int(fields["faces"]))


def faces_json(faces: Faces, threshold: float) -> list[dict[str, Any]]:
    """Faces from a score on, in the form that `detect --json` writes."""
    return [
        {"score": f.score, "box": list(f.box), "landmarks": [list(point) for point in f.landmarks]}
        for f in faces
        if f.score >= threshold
    ]
