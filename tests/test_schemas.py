"""The JSON Schemas in the package are those of the types, and every file that the program writes follows its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from jsonschema import Draft202012Validator
from PIL import Image

from retinaface_edge.benchmarks.cost.board import Board, store_board
from retinaface_edge.benchmarks.cost.estimate import Point
from retinaface_edge.calibration.dataset.synthetic_scenes import portrait, scenes
from retinaface_edge.calibration.recipe import RecipeError, recipe_from_json
from retinaface_edge.calibration.record import quant_params_from_json
from retinaface_edge.cli.main import main
from retinaface_edge.runtime import Bundle, Detector
from retinaface_edge.runtime.host.artifact_choice import store_pick
from retinaface_edge.runtime.records import RecordError
from retinaface_edge.schemas import NAMES, generate, read_schema

FOLDER = ROOT / "retinaface_edge" / "schemas"


@pytest.fixture(scope="module")
def photos(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures with the boxes that FP32 finds on them."""
    folder = tmp_path_factory.mktemp("photos")
    detector = Detector.load(bundle, "onnxruntime", "fp32")
    listed, names = [], []
    for index, frame in enumerate([portrait(), portrait()[:, ::-1], *scenes(4, seed=5)]):
        names.append(f"{index}.png")
        Image.fromarray(np.ascontiguousarray(frame[:, :, ::-1])).save(folder / names[-1])
        found = detector.detect(np.ascontiguousarray(frame))
        listed.append({"file": names[-1], "boxes_xyxy": found.boxes.tolist(), "landmarks": found.landmarks.tolist()})
    (folder / "boxes.json").write_text(json.dumps(listed))
    return folder


@pytest.fixture
def device(mesh_bundle: Bundle, tmp_path: Path) -> Path:
    """A copy of a bundle with a stored choice of this device."""
    copy = shutil.copytree(mesh_bundle.path, tmp_path / "device")
    store_pick(Bundle.load(copy), "openvino", "int8")
    return copy


def content_of(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def follows(name: str, content: object) -> None:
    """`content` is valid, and no longer when a field is renamed, at the top or in any record below it."""
    validator = Draft202012Validator(read_schema(name))
    validator.validate(content)
    if isinstance(content, dict) and name != "output/doctor":
        assert not validator.is_valid({**content, "surprise": 1})
        assert not validator.is_valid({}), "it demands nothing"


def command(arguments: Sequence[str | Path]) -> None:
    assert main([*map(str, arguments)]) in (0, 1)


def test_the_shipped_schemas_are_those_of_the_types() -> None:
    generated = generate()
    shipped = {str(path.relative_to(FOLDER).with_suffix("")) for path in FOLDER.rglob("*.json")}
    assert shipped == set(NAMES) == set(generated)
    for name, content in generated.items():
        assert read_schema(name) == content, f"{name} is out of date; run: python -m retinaface_edge.schemas"
        Draft202012Validator.check_schema(content)
    with pytest.raises(KeyError):
        read_schema("../pyproject")


@pytest.mark.parametrize("name", NAMES)
def test_every_record_in_a_schema_is_described_and_closed(name: str) -> None:
    for kind, record in read_schema(name)["$defs"].items():
        assert record["additionalProperties"] is False
        assert record["description"] and not record["description"].startswith(f"{kind}("), kind
        assert set(record["required"]) <= set(record["properties"])


def test_the_files_of_a_bundle(device: Path) -> None:
    for file, name in {
        "manifest.json": "manifest",
        "calibration.json": "calibration",
        "mesh.calibration.json": "calibration",
        "recipe.json": "recipe",
        "device.json": "device",
    }.items():
        follows(f"bundle/{name}", content_of(device / file))


def test_the_manifest_of_the_first_format() -> None:
    follows("bundle/manifest", content_of(ROOT / "tests" / "runtime" / "fixtures" / "manifest_format_1.json"))


def test_an_unknown_or_missing_field_in_a_file_of_a_bundle_is_named(device: Path) -> None:
    recipe, calibration = content_of(device / "recipe.json"), content_of(device / "calibration.json")
    with pytest.raises(RecipeError, match=r"mine\.json is not a recipe: there is no field colour"):
        recipe_from_json({**recipe, "colour": 1}, "mine.json")
    with pytest.raises(RecipeError, match="the field rounding is missing"):
        recipe_from_json({key: value for key, value in recipe.items() if key != "rounding"}, "mine.json")
    with pytest.raises(RecordError, match="the field images is missing"):
        quant_params_from_json({"tensors": calibration["tensors"]})
    (tensor, found), *_ = calibration["tensors"].items()
    with pytest.raises(RecordError, match=f"there is no field tensors.{tensor}.bits"):
        quant_params_from_json({**calibration, "tensors": {tensor: {**found, "bits": 8}}})


def test_the_verbs_about_a_bundle_and_a_machine(device: Path, tmp_path: Path) -> None:
    for verb, arguments in {"verify": [device], "inspect": [device], "doctor": []}.items():
        command([verb, *arguments, "--json", tmp_path / f"{verb}.json"])
        follows(f"output/{verb}", content_of(tmp_path / f"{verb}.json"))


@pytest.mark.parametrize("options", [[], ["--mesh"], ["--clip", "--tiles"]])
def test_the_lines_of_detect(device: Path, photos: Path, options: list[str], tmp_path: Path) -> None:
    command(["detect", device, photos / "0.png", *options, "--json", tmp_path / "lines.jsonl"])
    (line,) = lines_of(tmp_path / "lines.jsonl")
    follows("output/detect", line)
    assert line["faces"] and ("pose" in line["faces"][0]) == ("--mesh" in options)


def test_the_lines_of_a_video(device: Path, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="the extra `video` is not installed")
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (512, 512))
    for _ in range(3):
        writer.write(portrait())
    writer.release()
    command(["detect", device, tmp_path / "clip.avi", "--track", "--json", tmp_path / "lines.jsonl"])
    *frames, end = lines_of(tmp_path / "lines.jsonl")
    for line in (*frames, end):
        follows("output/detect", line)
    assert [face["id"] for line in frames for face in line["faces"]] == [1, 1, 1]
    assert set(end) == {"frames", "promised", "ended"}


def test_results(mesh_bundle: Bundle, photos: Path, tmp_path: Path) -> None:
    artifacts = ["--artifact", "onnxruntime int8", "--artifact", "openvino int8"]
    boxes, bundle = photos / "boxes.json", mesh_bundle.path
    verbs: dict[str, list[str | Path]] = {
        "drift": ["drift", bundle, "--images", photos, *artifacts, "--layers", "--no-cache"],
        "eval": ["eval", bundle, "--boxes", boxes, *artifacts, "--no-cache"],
        "bench": ["bench", bundle, photos / "0.png", *artifacts, "--quick"],
        "compare": ["compare", tmp_path / "eval.json", tmp_path / "eval.json"],
    }
    for kind, arguments in verbs.items():
        command([*arguments, "--json", tmp_path / f"{kind}.json"])
        follows(f"results/{kind}", content_of(tmp_path / f"{kind}.json"))


def test_the_boards_that_were_calibrated(tmp_path: Path) -> None:
    points = (Point("tflite int8, detector, cortex-a72", "a board", 1, 100.0, 90_000_000, 1_000_000),)
    store_board(tmp_path / "boards.json", Board("cortex-a72", 1.5, 1, points))
    follows("settings/boards", content_of(tmp_path / "boards.json"))


def lines_of(path: Path) -> list[dict[str, Any]]:
    return list(map(json.loads, path.read_text(encoding="utf-8").splitlines()))
