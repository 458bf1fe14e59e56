"""Results of format 1, the last version's, brought to the present format.

Only names and shapes change here; whether fields are all there and of the right type is checked by who reads the
outcome. A field that format 1 did not know is left as it is, so that it is refused by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Change = Callable[[Any], Any]
BACKENDS = ("openvino", "tflite", "onnxruntime")
AP_OF_TRUTH = "ap_"


def upgraded(content: Mapping[str, Any]) -> dict[str, Any]:
    """A result of format 1 with the field names of format 2."""
    kinds = {"drift": _drift, "eval": _eval, "compare": _compare}
    change = kinds.get(str(content.get("kind")))
    return dict(change(content) if change else content)


def _drift(result: Mapping[str, Any]) -> Any:
    return _object(
        result,
        {"artifacts": "networks", "input": "input_px"},
        networks=_each(_network),
        input_px=_size,
        comparisons=_each(_comparison),
        worst_images=_each(lambda worst: _object(worst, {"badness": "visible_difference"})),
        layers=_each(_layers),
        meshes=_each(_mesh),
    )


def _eval(result: Mapping[str, Any]) -> Any:
    return _object(
        result,
        {"artifacts": "networks", "input": "input_px", "set": "dataset"},
        networks=_each(_network),
        input_px=_size,
        dataset=lambda described: _object(described, {"least_face": "least_face_px"}),
        results=_each(lambda row: _object(row, {}, recall_by_size=_each(_size_band))),
    )


def _compare(result: Mapping[str, Any]) -> Any:
    names = {"a": "ap_a", "b": "ap_b", "low": "difference_low", "high": "difference_high"}
    changed = _object(result, {}, changes=_each(lambda change: _object(change, names)))
    if changed.get("artifacts") == []:  # format 1 always wrote it, and always empty
        del changed["artifacts"]
    return changed


def _network(network: Mapping[str, Any]) -> Any:
    """Backend and precision become the artifact; what was no artifact of a bundle had a backend of its own."""
    changed = _object(network, {"bytes": "size_bytes"})
    if isinstance(changed, dict) and {"backend", "precision"} <= set(changed):
        backend, precision = changed.pop("backend"), changed.pop("precision")
        if backend in BACKENDS:
            changed["artifact"] = {"backend": backend, "precision": precision}
    return changed


def _comparison(comparison: Mapping[str, Any]) -> Any:
    lost = _each(lambda face: _object(face, {"size": "size_px", "faint": "below_threshold"}))
    image = _each(lambda row: _object(row, {"landmark_shift_mean": "landmark_shift_mean_share"}))
    changed = _object(comparison, {}, detections=_detections, missed=lost, invented=lost, per_image=image)
    if isinstance(changed, dict):
        changed.pop("precision", None)  # that of the network named `artifact`
    return changed


def _detections(detections: Mapping[str, Any]) -> Any:
    names = {
        "missed_faint": "missed_below_threshold",
        "invented_faint": "invented_below_threshold",
        "score_shift_absolute": "score_shift_absolute_mean",
        "score_shift_largest": "score_shift_absolute_largest",
        "landmark_shift_mean": "landmark_shift_mean_share",
        "landmark_shift_p95": "landmark_shift_p95_share",
    }
    score_band = _each(lambda band: _object(band, {"from": "from_score", "to": "to_score"}))
    changed = _object(detections, names, by_size=_each(_size_band), by_score=score_band)
    if isinstance(changed, dict):
        truths = [name for name in changed if name.startswith(AP_OF_TRUTH)]
        changed["ap"] = {name.removeprefix(AP_OF_TRUTH): changed.pop(name) for name in truths}
    return changed


def _layers(comparison: Mapping[str, Any]) -> Any:
    names = {"born_sqnr_db": "introduced_sqnr_db", "sqnr_db": "accumulated_sqnr_db"}
    return _object(comparison, {"born_in": "introduced_most_in"}, layers=_each(lambda layer: _object(layer, names)))


def _mesh(mesh: Mapping[str, Any]) -> Any:
    names = {f"{which}_percent": f"{which}_percent_of_size" for which in ("mean", "median", "worst")}
    shown = _each(lambda face: _object(face, {"percent": "percent_of_size"}))
    return _object(mesh, {**names, "pose_degrees": "pose_difference_degrees"}, shown=shown)


def _size_band(band: Mapping[str, Any]) -> Any:
    return _object(band, {"from": "from_px", "to": "to_px"})


def _size(text: Any) -> Any:
    """`640x480` as [640, 480]; `unknown`, of predictions made elsewhere, as None."""
    if text == "unknown":
        return None
    width, x, height = str(text).partition("x")
    return [int(width), int(height)] if x and width.isdecimal() and height.isdecimal() else text


def _object(value: Any, names: Mapping[str, str], **changes: Change) -> Any:
    """An object with fields renamed and then, by their new names, changed; what is no object is left as it is."""
    if not isinstance(value, Mapping):
        return value
    renamed = {names.get(key, key): item for key, item in value.items()}
    return {key: changes[key](item) if key in changes else item for key, item in renamed.items()}


def _each(change: Change) -> Change:
    """The change made to every entry of a list; what is no list is left as it is."""
    return lambda value: [change(item) for item in value] if isinstance(value, list) else value
