"""Frozen dataclasses to JSON and back, read strictly, with a JSON Schema for each.

Every file that leaves the program is described by a dataclass: its fields are the keys, its type hints the types. A
field that is missing (and has no default), unknown or of another type is refused by its path in the file, such as
`comparisons[3].tensors[0].sqnr_db`. Known types: `bool`, `int`, `float`, `str`, `None`, enumerations and literals of
strings, dataclasses, named tuples, `tuple[X, ...]`, `tuple[X, Y]`, `Mapping[str, X]` and unions of these.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cache
from typing import Any, TypeVar

from .errors import RetinaFaceEdgeError

Record = TypeVar("Record")
NAMES: Mapping[Any, str] = {
    str: "text",
    bool: "true or false",
    float: "a number",
    int: "an integer",
    type(None): "null",
}
LARGEST_INTEGER = (1 << 63) - 1
"""JSON's integers have no limit, but what is computed from them has: larger ones do not become floats."""
DIALECT = "https://json-schema.org/draft/2020-12/schema"


class RecordError(RetinaFaceEdgeError):
    """JSON that is not what a file of its kind holds. The message has the path of the field."""


def to_json(record: object) -> Any:
    """Plain JSON values of a record. Fields that are at a default of None are left out."""
    if dataclasses.is_dataclass(record):
        return {
            field.name: to_json(value)
            for field in dataclasses.fields(record)
            if not ((value := getattr(record, field.name)) is None and field.default is None)
        }
    if isinstance(record, Enum):
        return record.value
    if isinstance(record, tuple) and _is_record(type(record)):
        return {name: to_json(value) for name, value in zip(_fields(type(record)), record, strict=True)}
    if isinstance(record, Mapping):
        return {key: to_json(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [to_json(value) for value in record]
    return record


def from_json(kind: type[Record], value: object, where: str = "") -> Record:
    """Read what `to_json` gave for a record of type `kind`.

    `where` is the path of `value` in its file, for messages. Raises `RecordError` naming the first field that is wrong.
    """
    return typing.cast("Record", _read(kind, value, where))


def schema(kind: Any, title: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a record type, or of a union of them."""
    definitions: dict[str, Any] = {}
    return {"$schema": DIALECT, "title": title, **_schema(kind, definitions), "$defs": definitions}


def _read(kind: Any, value: object, where: str) -> Any:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _read_union(kind, value, where)
    if origin is typing.Literal:
        same = any(type(value) is type(choice) and value == choice for choice in typing.get_args(kind))
        return _checked(same, value, value, _wanted(kind), where)
    if origin is tuple:
        return _read_tuple(typing.get_args(kind), value, where)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise _refused(value, "an object", where)
        inner = typing.get_args(kind)[1]
        return {key: _read(inner, item, _below(where, key)) for key, item in value.items()}
    if _is_record(kind):
        return _read_record(kind, value, where)
    if isinstance(kind, type) and issubclass(kind, Enum):
        known = [member for member in kind if type(value) is str and member.value == value]
        return _checked(bool(known), known[0] if known else None, value, _wanted(kind), where)
    if kind is float:
        number = _number(value)
        return _checked(number is not None, number, value, "a number", where)
    if kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return _checked(abs(value) <= LARGEST_INTEGER, value, value, "an integer of at most 64 bits", where)
        raise _refused(value, "an integer", where)
    if kind is Any:
        return value
    if kind in (None, type(None)):
        return _checked(value is None, None, value, "null", where)
    return _checked(isinstance(value, kind), value, value, _wanted(kind), where)


def _read_record(kind: Any, value: object, where: str) -> Any:
    if not isinstance(value, dict):
        raise _refused(value, f"an object ({kind.__name__})", where)
    hints, fields = _hints(kind), _fields(kind)
    for name in value:
        if name not in fields:
            raise RecordError(f"there is no field {_below(where, name)}; known: {', '.join(fields)}")
    for name, required in fields.items():
        if required and name not in value:
            raise RecordError(f"the field {_below(where, name)} is missing")
    read = {name: _read(hints[name], item, _below(where, name)) for name, item in value.items()}
    try:
        return kind(**read)
    except (ValueError, TypeError) as error:
        raise RecordError(f"{where or kind.__name__}: {error}") from error


def _read_union(kind: Any, value: object, where: str) -> Any:
    choices = typing.get_args(kind)
    if value is None and type(None) in choices:
        return None
    errors = {}
    for choice in choices:
        if choice is type(None):
            continue
        try:
            return _read(choice, value, where)
        except RecordError as error:
            errors[choice] = error
    records = [choice for choice in errors if _is_record(choice)]
    if records and isinstance(value, dict):  # which one was meant is seen by its fields, and what is wrong is named
        raise errors[max(records, key=lambda record: len(_fields(record).keys() & value.keys()))]
    raise next(iter(errors.values())) if len(errors) == 1 else _refused(value, _wanted(kind), where)


def _read_tuple(kinds: Sequence[Any], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise _refused(value, "a list", where)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = [kinds[0]] * len(value)
    if len(kinds) != len(value):
        raise _refused(value, f"a list of {len(kinds)}", where)
    return tuple(_read(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True)))


def _is_record(kind: Any) -> bool:
    """Whether it is a dataclass or a named tuple."""
    return isinstance(kind, type) and (dataclasses.is_dataclass(kind) or hasattr(kind, "_field_defaults"))


@cache
def _fields(kind: Any) -> dict[str, bool]:
    """The fields of a record type, and whether a file must have them."""
    if dataclasses.is_dataclass(kind):
        fields = [field for field in dataclasses.fields(kind) if field.init]
        return {f.name: f.default is f.default_factory is dataclasses.MISSING for f in fields}
    return {name: name not in kind._field_defaults for name in kind._fields}


def _number(value: object) -> float | None:
    """The value as a finite float; None when it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:  # JSON's integers have no limit
        return None
    return number if math.isfinite(number) else None


def _checked(good: bool, result: object, value: object, wanted: str, where: str) -> Any:
    if not good:
        raise _refused(value, wanted, where)
    return result


def _refused(value: object, wanted: str, where: str) -> RecordError:
    shown = repr(value)
    return RecordError(
        f"{where or 'the file'} should be {wanted}, not {shown if len(shown) <= 60 else f'{shown[:57]}...'}"
    )


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _wanted(kind: Any) -> str:
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(kind)))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "one of " + ", ".join(repr(member.value) for member in kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(_wanted(choice) for choice in typing.get_args(kind))
    return NAMES.get(kind, getattr(kind, "__name__", str(kind)))


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema(choice, definitions) for choice in inner]}
    if origin is typing.Literal:
        return {"enum": list(inner)}
    if origin is tuple:
        if len(inner) == 2 and inner[1] is Ellipsis:
            return {"type": "array", "items": _schema(inner[0], definitions)}
        items = [_schema(choice, definitions) for choice in inner]
        return {"type": "array", "prefixItems": items, "minItems": len(inner), "maxItems": len(inner)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(inner[1], definitions)}
    if _is_record(kind):
        return _record_schema(kind, definitions)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [member.value for member in kind]}
    names: dict[Any, dict[str, Any]] = {
        str: {"type": "string"},
        bool: {"type": "boolean"},
        int: {"type": "integer", "minimum": -LARGEST_INTEGER, "maximum": LARGEST_INTEGER},
        float: {"type": "number"},
        type(None): {"type": "null"},
        Any: {},
    }
    return dict(names[kind])


def _record_schema(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    reference = {"$ref": f"#/$defs/{kind.__name__}"}
    if kind.__name__ in definitions:
        return reference
    definitions[kind.__name__] = {}  # before its fields: a record may hold others of its kind
    hints, fields = _hints(kind), _fields(kind)
    definitions[kind.__name__] = {
        "type": "object",
        "description": (kind.__doc__ or "").strip().splitlines()[0] if kind.__doc__ else "",
        "properties": {name: _schema(hints[name], definitions) for name in fields},
        "required": [name for name, required in fields.items() if required],
        "additionalProperties": False,
    }
    return reference
