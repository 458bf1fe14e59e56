"""Records: JSON and back is the identity, what is wrong is named, and the schema accepts what is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from retinaface_edge.runtime.artifact import ArtifactId, Backend, Precision
from retinaface_edge.runtime.records import LARGEST_INTEGER, RecordError, from_json, schema, to_json


@dataclass(frozen=True)
class Inner:
    """One figure."""

    name: str
    value: float | None = None


@dataclass(frozen=True)
class Outer:
    """A file."""

    format_version: Literal[1]
    artifact: ArtifactId
    size: tuple[int, int]
    figures: tuple[Inner, ...]
    by_name: Mapping[str, Inner]
    good: bool = True
    parent: Outer | None = None


INTEGERS = st.integers(-LARGEST_INTEGER, LARGEST_INTEGER)
inners = st.builds(Inner, st.text(), st.none() | st.floats(allow_nan=False, allow_infinity=False))
artifacts = st.builds(ArtifactId, st.sampled_from(Backend), st.sampled_from(Precision))
outers = st.builds(
    Outer,
    st.just(1),
    artifacts,
    st.tuples(INTEGERS, INTEGERS),
    st.lists(inners).map(tuple),
    st.dictionaries(st.text(), inners),
    st.booleans(),
)
nested = st.builds(Outer, st.just(1), artifacts, st.just((1, 2)), st.just(()), st.just({}), parent=outers)


@given(outers | nested)
def test_json_and_back_is_the_identity_and_obeys_the_schema(record: Outer) -> None:
    text = json.dumps(to_json(record))
    assert from_json(Outer, json.loads(text)) == record
    Draft202012Validator(schema(Outer, "outer")).validate(json.loads(text))


GOOD = {
    "format_version": 1,
    "artifact": {"backend": "tflite", "precision": "int8"},
    "size": [640, 480],
    "figures": [{"name": "a", "value": 1}],
    "by_name": {"b": {"name": "b"}},
}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("format_version",), True, "format_version should be one of 1, not True"),
        (("format_version",), 2, "format_version should be one of 1, not 2"),
        (("artifact", "backend"), "abacus", "artifact.backend should be one of 'openvino', 'tflite', 'onnxruntime'"),
        (("artifact", "backend"), {"a": 1}, "artifact.backend should be one of 'openvino', 'tflite', 'onnxruntime'"),
        (("artifact", "backend"), [], "artifact.backend should be one of 'openvino', 'tflite', 'onnxruntime'"),
        (("size",), [1], "size should be a list of 2"),
        (("size", 1), 1.5, r"size\[1\] should be an integer, not 1.5"),
        (("size", 1), True, r"size\[1\] should be an integer, not True"),
        (("size", 1), 10**400, r"size\[1\] should be an integer of at most 64 bits, not 10+\.\.\."),
        (("size", 1), -(1 << 63), r"size\[1\] should be an integer of at most 64 bits, not -9223372036854775808"),
        (("figures", 0, "value"), "x", r"figures\[0\].value should be"),
        (("figures", 0, "value"), float("nan"), r"figures\[0\].value should be"),
        (("figures", 0, "valeu"), 1, r"there is no field figures\[0\].valeu; known: name, value"),
        (("by_name", "b"), [], "by_name.b should be an object"),
        (("good",), 1, "good should be true or false, not 1"),
    ],
)
def test_a_wrong_field_is_named_and_the_schema_refuses_it(
    path: tuple[str | int, ...], value: object, message: str
) -> None:
    content = json.loads(json.dumps(GOOD))
    place = content
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(RecordError, match=message):
        from_json(Outer, content)
    if value == value:  # JSON has no NaN, so the schema need not refuse it
        assert not Draft202012Validator(schema(Outer, "outer")).is_valid(content)


def test_an_integer_too_large_for_a_float_is_no_number() -> None:
    with pytest.raises(RecordError, match=r"figures\[0\].value should be a number"):
        from_json(Outer, {**GOOD, "figures": [{"name": "a", "value": 10**400}]})


def test_a_missing_field_is_named() -> None:
    for name in GOOD:
        with pytest.raises(RecordError, match=f"the field {name} is missing"):
            from_json(Outer, {key: value for key, value in GOOD.items() if key != name})
    from_json(Outer, GOOD)


def test_artifact_ids_print_and_parse() -> None:
    for backend in Backend:
        for precision in Precision:
            one = ArtifactId(backend, precision)
            assert str(one) == f"{one}" == f"{backend} {precision}" == f"{backend.value} {precision.value}"
            assert ArtifactId.parse(str(one)) == one
    with pytest.raises(ValueError, match="abacus"):
        ArtifactId.parse("abacus fp32")
