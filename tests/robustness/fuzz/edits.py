"""Edits of valid JSON values that bytes decide, so that a fuzzer gets past the first check of a reader."""

from __future__ import annotations

import copy
import json
from typing import Any

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 32, 255, 256, 10**9, 2**31, 2**63, 10**400, 0.0, -0.5, 0.1, 1e308, float("nan")),
    *(float("inf"), "", "a", "0", "../x", "/etc/passwd", "\0", "\ud800", "é", "*", "[", "tflite", "int8", "x" * 300),
    *([], [[]], {}, [1], [0, 0, 0], [1e300], {"a": 1}, [{"path": "a"}], {"path": "..", "bytes": -1, "sha256": None}),
)


def edited(value: Any, data: bytes) -> Any:
    """A copy of `value` with an edit for every three bytes: where, what kind, and by which value."""
    value = copy.deepcopy(value)
    for start in range(0, len(data) - 2, 3):
        where, kind, which = data[start : start + 3]
        parent, key = _place(value, where)
        if parent is None:
            return copy.deepcopy(VALUES[which % len(VALUES)])
        if kind % 4 == 0:
            del parent[key]
        elif kind % 4 == 1 and isinstance(parent, dict):
            parent[f"extra{which}"] = copy.deepcopy(VALUES[which % len(VALUES)])
        elif kind % 4 == 1:
            parent.insert(key, copy.deepcopy(parent[key]))
        else:
            parent[key] = copy.deepcopy(VALUES[which % len(VALUES)])
    return value


def _place(value: Any, where: int) -> tuple[Any, Any]:
    """A container inside `value` and a key of it; (None, None) when `value` is an empty container or none."""
    parent, key, steps = None, None, where
    while isinstance(value, dict | list) and value:
        keys = sorted(value) if isinstance(value, dict) else range(len(value))
        parent, key = value, keys[steps % len(keys)]
        value, steps = value[key], steps // len(keys) + 7 * (steps % 5)
        if where % 3 == 0:
            break
    return parent, key


def as_json(value: Any, data: bytes) -> bytes:
    """Half of the time `data` as it is, half of the time the JSON of an edit of `value`."""
    if not data or data[0] % 2:
        return data[1:]
    return json.dumps(edited(value, data[1:])).encode("utf-8", "surrogatepass")
