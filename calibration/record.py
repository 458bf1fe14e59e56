"""What `calibration.json` in a bundle holds: the images of the calibration, and the range of every tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from retinaface_edge.runtime.ops.quantization import QuantParams
from retinaface_edge.runtime.records import from_json


@dataclass(frozen=True)
class CalibrationImages:
    """How many images there were, on how many FP32 finds a face, the SHA-256 over them, and the files left out."""

    count: int
    with_faces: int
    digest: str
    skipped: tuple[str, ...]


@dataclass(frozen=True)
class TensorRange:
    """The range of one tensor, the estimator that found it, and its uint8 quantisation parameters."""

    estimator: str
    low: float
    high: float
    scale: float
    zero_point: int


@dataclass(frozen=True)
class CalibrationRecord:
    """`calibration.json`; `tensors` is by the name of the value in the ONNX model."""

    images: CalibrationImages
    tensors: Mapping[str, TensorRange]


def quant_params_from_json(content: object) -> dict[str, QuantParams]:
    """The quantisation parameters in `calibration.json`. Raises `RecordError` naming a field that is wrong."""
    record = from_json(CalibrationRecord, content)
    return {name: QuantParams(found.scale, found.zero_point) for name, found in record.tensors.items()}
