"""Formats of the latest result: JSON for programs, Prometheus text for monitoring."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

from .pipeline import Moment, Pipeline, Speed


@dataclass(frozen=True)
class About:
    """What is running: version of this package, backend and precision."""

    version: str
    backend: str
    precision: str


def moment_json(moment: Moment) -> str:
    """One line: frame number, time, size, speed, and the faces as `detect --json` writes them, rounded to 0.01 px."""
    height, width = moment.frame.shape[:2]
    faces = []
    for face in moment.faces:
        record = {
            "score": round(face.score, 4),
            "box": [round(value, 2) for value in face.box],
            "landmarks": [[round(x, 2), round(y, 2)] for x, y in face.landmarks],
        }
        if face.vertices is not None:
            record["vertices"] = face.vertices.round(1).tolist()
        faces.append(record)
    content = {
        "frame": moment.number,
        "time": round(moment.time, 3),
        "width": width,
        "height": height,
        "speed": speed_record(moment.speed),
        "faces": faces,
    }
    return json.dumps(content, separators=(",", ":"))


def speed_record(speed: Speed) -> dict[str, float]:
    """Frames per second and shares from 0 to 1."""
    return {
        "frames_per_second": round(speed.rate, 2),
        "pre": round(speed.pre, 4),
        "inference": round(speed.inference, 4),
        "post": round(speed.post, 4),
    }


def metrics(pipeline: Pipeline, about: About, viewers: int) -> str:
    """Prometheus' text format, version 0.0.4."""
    return "".join(f"{line}\n" for line in _metric_lines(pipeline, about, viewers))


def _metric_lines(pipeline: Pipeline, about: About, viewers: int) -> Iterator[str]:
    times, moment, state = pipeline.times, pipeline.latest, pipeline.source.state
    build = ",".join(
        f'{name}="{_escaped(value)}"'
        for name, value in (("version", about.version), ("backend", about.backend), ("precision", about.precision))
    )
    yield from _metric("build_info", "gauge", "What is running.", {build: 1})
    yield from _metric("frames_total", "counter", "Frames processed.", {"": times.frames})
    yield from _metric("faces_total", "counter", "Faces found in all frames.", {"": pipeline.faces_seen})
    yield from _metric("faces", "gauge", "Faces in the latest frame.", {"": len(moment.faces) if moment else 0})
    rate = moment.speed.rate if moment and state.connected else 0.0
    yield from _metric("frames_per_second", "gauge", "Frame rate of the last two seconds.", {"": round(rate, 3)})
    parts = {'part="pre"': times.pre, 'part="inference"': times.inference, 'part="post"': times.post}
    yield from _metric("part_seconds_total", "counter", "Time of each part of the detector.", parts)
    yield from _metric("source_up", "gauge", "1 while the source gives frames.", {"": int(state.connected)})
    yield from _metric("source_reconnects_total", "counter", "Times the source was reopened.", {"": state.reconnects})
    yield from _metric("viewers", "gauge", "Open streams of faces and video.", {"": viewers})


def _metric(name: str, kind: str, text: str, values: dict[str, float]) -> Iterator[str]:
    full = f"retinaface_edge_{name}"
    yield f"# HELP {full} {text}"
    yield f"# TYPE {full} {kind}"
    for labels, value in values.items():
        yield f"{full}{{{labels}}} {value}" if labels else f"{full} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
