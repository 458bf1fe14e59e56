"""One INT8 TFLite file on several kernel sets: how far their faces are from each other.

What is shipped is a file, and which kernels run it is the device's choice. So this is a figure of its own, beside the
drift from FP32 to INT8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.bundle.bundle import Bundle
from retinaface_edge.runtime.detector import Detector
from retinaface_edge.runtime.ops.iou import iou
from retinaface_edge.runtime.ops.postprocess import Faces, QuantParams, RawOutput
from retinaface_edge.runtime.spec import Spec

KERNELS = {"xnnpack": "AUTO", "builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}
"""LiteRT's kernel sets by name: its default, its own optimised ones, and those that define the arithmetic."""
IOU_THRESHOLD = 0.5


@dataclass(frozen=True)
class Drift:
    """Faces of two sources on the same frames.

    `faces` are how many each has; `matched` the share of each that has a counterpart in the other; `corner_shift` the
    median distance in frame pixels between the top left corners, and the bottom right ones, of matched boxes; NaN when
    none is matched.
    """

    faces: tuple[int, int]
    matched: tuple[float, float]
    corner_shift: float


def kernel_faces(
    bundle: Bundle, frames: Sequence[NDArray[np.uint8]], kernels: str, score_threshold: float = 0.5
) -> list[Faces]:
    """The faces that the bundle's INT8 TFLite file finds in BGR frames on one of `KERNELS`, one thread."""
    (file,) = bundle.artifact("tflite", "int8").files
    detector = Detector(bundle.spec, _Interpreter(bundle.spec, bundle.read(file), kernels))
    return [detector.detect(frame, score_threshold) for frame in frames]


def kernel_outputs(bundle: Bundle, images: Sequence[NDArray[np.uint8]], kernels: str) -> list[list[RawOutput]]:
    """The raw outputs of the bundle's INT8 TFLite file for network inputs, on one of `KERNELS`, one thread."""
    (file,) = bundle.artifact("tflite", "int8").files
    network = _Interpreter(bundle.spec, bundle.read(file), kernels)
    return [network.run(image) for image in images]


def drift(ours: Sequence[Faces], theirs: Sequence[Faces]) -> Drift:
    """Compare the faces of two sources, one entry per frame; a face is matched once, from an IoU of 0.5."""
    pairs, shifts = 0, []
    for a, b in zip(ours, theirs, strict=True):
        overlaps = iou(a.boxes, b.boxes)
        while overlaps.size and overlaps.max() >= IOU_THRESHOLD:
            row, column = np.unravel_index(overlaps.argmax(), overlaps.shape)
            shifts.append(np.linalg.norm((a.boxes[row] - b.boxes[column]).reshape(2, 2), axis=1))
            overlaps[row], overlaps[:, column] = -1.0, -1.0
            pairs += 1
    counts = sum(map(len, ours)), sum(map(len, theirs))
    return Drift(
        counts,
        (pairs / max(counts[0], 1), pairs / max(counts[1], 1)),
        float(np.median(np.concatenate(shifts))) if shifts else float("nan"),
    )


def kernel_drift(found: Mapping[str, Sequence[Faces]]) -> dict[tuple[str, str], Drift]:
    """The drift between every two kernel sets, given what each found on the same frames."""
    names = list(found)
    return {
        (first, second): drift(found[first], found[second])
        for place, first in enumerate(names)
        for second in names[place + 1 :]
    }


class _Interpreter:
    """A network on one kernel set; the runtime's own backend takes LiteRT's default, as an application does."""

    def __init__(self, spec: Spec, model: bytes, kernels: str) -> None:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        resolver = getattr(OpResolverType, KERNELS[kernels])
        self._interpreter: Any = Interpreter(model_content=model, num_threads=1, experimental_op_resolver_type=resolver)
        self._interpreter.allocate_tensors()
        details = {entry["name"].split(":")[0]: entry for entry in self._interpreter.get_output_details()}
        outputs = [details[output.name] for output in spec.outputs]
        self._image = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [entry["index"] for entry in outputs]
        self.quant_params = tuple(QuantParams(*entry["quantization"]) for entry in outputs)

    def run(self, image: NDArray[np.uint8]) -> list[RawOutput]:
        self._interpreter.set_tensor(self._image, image)
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]
