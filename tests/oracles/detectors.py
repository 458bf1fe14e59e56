"""SCRFD and YuNet as their authors run them: the published ONNX file in ONNX Runtime, and its decoder read slowly.

SCRFD as InsightFace's `scrfd.py` has it, YuNet as libfacedetection's `facedetectcnn.cpp`. Nothing here is shared with
the product: anchors, scores, boxes and suppression are written down a second time, face by face, in plain Python.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

STRIDES = (8, 16, 32)
Box = tuple[float, float, float, float]
Point = tuple[float, float]


@dataclass(frozen=True)
class Found:
    """One face in pixels of the network's input: `box` is x1, y1, x2, y2."""

    score: float
    box: Box
    landmarks: tuple[Point, ...]


class Peer:
    """A published file and its own decoder. Call it with a BGR image, uint8, both sides multiples of 32."""

    def __init__(self, file: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]
        self._decode = yunet if "cls_8" in self._names else scrfd

    def __call__(self, image: NDArray[np.uint8], least_score: float) -> list[Found]:
        blob = _scrfd_input(image) if self._decode is scrfd else _yunet_input(image)
        outputs = self._session.run(self._names, {self._session.get_inputs()[0].name: blob})
        height, width = image.shape[:2]
        return self._decode(dict(zip(self._names, outputs, strict=True)), height, width, least_score)


def scrfd(outputs: Mapping[str, NDArray[np.float32]], height: int, width: int, least_score: float) -> list[Found]:
    """Nine outputs in order of head and stride, two anchors a cell: distances and offsets from its corner, in strides.

    Suppression is at an overlap of 0.4, where a box of pixels 0 to 9 is ten pixels wide.
    """
    scores, boxes, points = (list(outputs.values())[start : start + 3] for start in (0, 3, 6))
    found = []
    for level, stride in enumerate(STRIDES):
        row = 0
        for y in range(0, height, stride):
            for x in range(0, width, stride):
                for _ in range(2):
                    score = float(scores[level].reshape(-1)[row])
                    if score >= least_score:
                        left, top, right, bottom = (float(d) * stride for d in boxes[level].reshape(-1, 4)[row])
                        offsets = [float(d) * stride for d in points[level].reshape(-1, 10)[row]]
                        marks = tuple((x + dx, y + dy) for dx, dy in zip(offsets[::2], offsets[1::2], strict=True))
                        found.append(Found(score, (x - left, y - top, x + right, y + bottom), marks))
                    row += 1
    return suppressed(found, 0.4, 1.0)


def yunet(outputs: Mapping[str, NDArray[np.float32]], height: int, width: int, least_score: float) -> list[Found]:
    """One anchor a cell, as large as its stride, at its corner; the score is the root of class times object.

    Suppression is at an overlap of 0.45.
    """
    found = []
    for stride in STRIDES:
        classes, objects, boxes, points = (
            outputs[f"{name}_{stride}"].reshape(-1, values)
            for name, values in (("cls", 1), ("obj", 1), ("bbox", 4), ("kps", 10))
        )
        columns = width // stride
        for row in range(len(classes)):
            score = math.sqrt(_clamped(classes[row, 0]) * _clamped(objects[row, 0]))
            if score < least_score:
                continue
            x, y = row % columns, row // columns
            dx, dy, dw, dh = (float(value) for value in boxes[row])
            centre_x, centre_y = (x + dx) * stride, (y + dy) * stride
            w, h = math.exp(dw) * stride, math.exp(dh) * stride
            box = (centre_x - w / 2, centre_y - h / 2, centre_x + w / 2, centre_y + h / 2)
            marks = tuple(
                ((x + float(px)) * stride, (y + float(py)) * stride) for px, py in points[row].reshape(5, 2).tolist()
            )
            found.append(Found(score, box, marks))
    return suppressed(found, 0.45)


def suppressed(found: Sequence[Found], most: float, extra: float = 0.0) -> list[Found]:
    """The faces, best first, that overlap no better one by more than `most`. A side is `extra` longer than x2 − x1."""
    kept: list[Found] = []
    for face in sorted(found, key=lambda face: -face.score):
        if all(overlap(face.box, other.box, extra) <= most for other in kept):
            kept.append(face)
    return kept


def overlap(a: Box, b: Box, extra: float = 0.0) -> float:
    """Intersection over union."""
    w = max(min(a[2], b[2]) - max(a[0], b[0]) + extra, 0.0)
    h = max(min(a[3], b[3]) - max(a[1], b[1]) + extra, 0.0)
    areas = sum((box[2] - box[0] + extra) * (box[3] - box[1] + extra) for box in (a, b))
    union = areas - w * h
    return w * h / union if union > 0.0 else 0.0


def _scrfd_input(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    rgb = image[:, :, ::-1].astype(np.float32)
    return np.ascontiguousarray(((rgb - 127.5) / 128.0).transpose(2, 0, 1)[None])


def _yunet_input(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ascontiguousarray(image.astype(np.float32).transpose(2, 0, 1)[None])


def _clamped(value: float) -> float:
    return min(max(float(value), 0.0), 1.0)
