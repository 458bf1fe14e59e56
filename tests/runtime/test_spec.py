"""The contract: one check for Python and JSON, the published detectors as points in it, and old manifests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectors import RETINAFACE, SCRFD, SLIM, SPECS, YUNET

from retinaface_edge.runtime import Bundle, Spec, SpecError
from retinaface_edge.runtime.spec import BoxCoding, Colour, Contract, Head, Mesh, NetworkContract, ScoreCoding

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_detector_survives_the_manifest(spec: Spec) -> None:
    read = Spec.from_json(json.loads(json.dumps(spec.to_json())))
    assert read == spec
    assert read.outputs == spec.outputs
    np.testing.assert_array_equal(read.anchors, spec.anchors)


def test_outputs_are_those_of_the_published_detectors() -> None:
    assert [(o.name, o.shape) for o in YUNET.outputs if o.stride == 16] == [
        ("score_16", (1, 4, 6, 1)),
        ("box_16", (1, 4, 6, 4)),
        ("landmark_16", (1, 4, 6, 10)),
        ("object_16", (1, 4, 6, 1)),
    ]
    # 480 rows at stride 64 are 7.5 cells: slim and RFB have 8, with 3, 2, 2, 3 anchors (biubug6, prior boxes).
    slim = Spec(strides=SLIM.strides, anchor_sizes=SLIM.anchor_sizes)
    assert [o.shape[1:] for o in slim.outputs if o.head == "score"] == [
        (60, 80, 3),
        (30, 40, 2),
        (15, 20, 2),
        (8, 10, 3),
    ]
    assert len(slim.anchors) == 60 * 80 * 3 + 30 * 40 * 2 + 15 * 20 * 2 + 8 * 10 * 3 == slim.level_bounds[-1]
    assert len(Spec(strides=(8, 16, 32), anchor_sizes=SCRFD.anchor_sizes).anchors) == 12600


def test_cells_begin_where_the_detector_says() -> None:
    np.testing.assert_array_equal(SCRFD.anchors[:4, :2], [[0, 0], [0, 0], [8, 0], [8, 0]])
    np.testing.assert_array_equal(RETINAFACE.anchors[:4, :2], [[4, 4], [4, 4], [12, 4], [12, 4]])
    assert set(SCRFD.units) == {8.0, 16.0, 32.0}
    np.testing.assert_array_equal(YUNET.units, YUNET.anchors[:, 2])


WRONG: dict[str, dict[str, Any]] = {
    "no divisor": {"strides": (7, 16, 32)},
    "falling strides": {"strides": (16, 8, 32)},
    "equal strides": {"strides": (8, 8, 32)},
    "fewer strides": {"strides": (7,)},
    "zero variances": {"variances": (0, 0)},
    "one variance": {"variances": (0.1,)},
    "large variance": {"variances": (0.1, 1.01)},
    "no finite variance": {"variances": (0.1, float("nan"))},
    "a level without anchors": {"anchor_sizes": ((16, 32), (), (256,))},
    "an anchor of no size": {"anchor_sizes": ((16, 0), (64,), (256,))},
    "half an anchor": {"anchor_sizes": ((16.5,), (64,), (256,))},
    "mean of two": {"mean": (104, 117)},
    "mean out of range": {"mean": (104, 117, 255.5)},
    "no deviation": {"std": (1, 0, 1)},
    "endless deviation": {"std": (1, float("inf"), 1)},
    "padding of two": {"padding": (0, 0)},
    "padding out of range": {"padding": (0, 0, 256)},
    "another origin": {"origin": 0.25},
    "another colour": {"colour": "GBR"},
    "another box coding": {"box_coding": "corners"},
    "another score": {"score": "softmax"},
    "negative landmarks": {"landmarks": -1},
    "too many landmarks": {"landmarks": 2049},
    "true landmarks": {"landmarks": True},
    "distances with variances": {"box_coding": BoxCoding.DISTANCES},
    "a mesh on four strides": {"strides": SLIM.strides, "anchor_sizes": SLIM.anchor_sizes, "mesh": Mesh()},
    "a mesh without landmarks": {"landmarks": 0, "mesh": Mesh()},
    "text for a size": {"width": "640"},
    "a list": {"strides": [8, 16, 32]},
}


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
def test_what_no_detector_has_is_refused_in_python_and_in_json(changes: dict[str, Any]) -> None:
    with pytest.raises(SpecError):
        Spec(**changes)
    if "mesh" in changes or changes == WRONG["a list"]:
        return
    content = Spec().to_json() | {name: getattr(value, "value", value) for name, value in changes.items()}
    with pytest.raises(SpecError, match="manifest's spec cannot be read"):
        Spec.from_json(content)


def test_a_missing_and_an_unknown_field_are_named() -> None:
    content = Spec().to_json()
    with pytest.raises(SpecError, match="box_codings"):
        Spec.from_json({**content, "box_codings": "distances"})
    del content["anchor_sizes"]
    with pytest.raises(SpecError, match="anchor_sizes"):
        Spec.from_json(content)


def test_padding_is_the_mean_colour_in_bgr_unless_it_is_given() -> None:
    assert Spec().padding_colour == (104, 117, 123)
    rgb = Spec(mean=(123.4, 117, 103.6), colour=Colour.RGB)
    assert rgb.padding_colour == (104, 117, 123)
    assert Spec(mean=(123.4, 117, 103.6), colour=Colour.RGB, padding=(104, 117, 123)) == rgb
    assert Spec(padding=(0, 0, 0)).padding_colour == (0, 0, 0)
    assert Spec(padding=(0, 0, 0)) != Spec()


def test_a_detector_that_the_first_version_decodes_has_its_format() -> None:
    """So that an old runtime refuses the others instead of decoding them wrongly."""
    assert Spec(96, 64).format_version == 1
    assert Spec(96, 64, mean=(1, 2, 3), anchor_sizes=((16,), (64,), (256,)), mesh=Mesh()).format_version == 1
    assert {spec.format_version for name, spec in SPECS.items() if name not in ("retinaface", "slim")} == {2}
    assert Spec(strides=SLIM.strides, anchor_sizes=SLIM.anchor_sizes).format_version == 2  # 7.5 cells
    assert set(Spec().to_json()) == set(json.loads((FIXTURES / "manifest_format_1.json").read_text())["spec"]) - {
        "mesh"
    }


def test_a_bundle_of_the_first_version_is_read(tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "manifest_format_1.json", tmp_path / "manifest.json")
    bundle = Bundle.load(tmp_path)
    assert bundle.spec == Spec(mesh=Mesh())
    assert json.loads(json.dumps(bundle.spec.to_json())) == bundle.manifest["spec"]


@pytest.mark.parametrize("contract", [Spec(mesh=Mesh()), Spec(mesh=Mesh()).with_features, Mesh()])
def test_all_contracts_have_one_shape(contract: Contract) -> None:
    values = NetworkContract(
        contract.input_name, contract.input_shape, contract.strides, contract.heads, contract.outputs
    )
    assert len({output.name for output in values.outputs}) == len(values.outputs)
    assert all(output.stride in (*values.strides, 1) for output in values.outputs)


def test_heads_follow_from_the_codings() -> None:
    assert Spec(landmarks=0, score=ScoreCoding.FACE_OBJECT).heads == (
        Head("score", 1),
        Head("box", 4),
        Head("object", 1),
    )
    assert Spec(landmarks=98).heads[2] == Head("landmark", 196)
