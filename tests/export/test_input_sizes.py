"""Bundles of several input sizes: one detector, with the same weights and quantisation parameters at each."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from conftest import CALIBRATION_IMAGES

from retinaface_edge.benchmarks.choose.result import ChooseResult
from retinaface_edge.benchmarks.results import read_result
from retinaface_edge.calibration.dataset.synthetic_scenes import Scenes, portrait
from retinaface_edge.calibration.recipe import Recipe
from retinaface_edge.cli.main import main
from retinaface_edge.export.build import BuildRequest, build
from retinaface_edge.export.checkpoints.demo import demo_branch, demo_file
from retinaface_edge.export.graph.detector_graph import GraphError
from retinaface_edge.export.graph.input_size import with_input_size
from retinaface_edge.runtime import Bundle, BundleError, Detector
from retinaface_edge.runtime.bundle.bundle import MANIFEST, serialise
from retinaface_edge.runtime.fitting import FittingDetector
from retinaface_edge.runtime.ops.iou import detection_drift
from retinaface_edge.runtime.spec import Spec

SMALL, TALL = (320, 256), (480, 640)
INTEGERS = ("openvino", "tflite", "onnxruntime")


@pytest.fixture
def portrait_frame() -> np.ndarray:
    return portrait()


@pytest.fixture
def astronaut(tmp_path: Path) -> Path:
    from PIL import Image

    Image.fromarray(portrait()[:, :, ::-1]).save(tmp_path / "astronaut.png")
    return tmp_path / "astronaut.png"


@pytest.fixture(scope="module")
def sizes(recipe: Recipe, spec: Spec, stages: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The demo's bundle with its mesh, for 640×480, 320×256 and 480×640."""
    return build(
        BuildRequest(
            demo_file(),
            (spec.width, spec.height),
            Scenes(CALIBRATION_IMAGES),
            recipe,
            tmp_path_factory.mktemp("sizes") / "bundle",
            cache=stages,
            branch=demo_branch(),
            more_sizes=(SMALL, TALL, SMALL),
        )
    )


def initialisers(bundle: Bundle, precision: str) -> dict[str, bytes]:
    model = onnx.load_from_string(bundle.read(bundle.artifact("onnxruntime", precision).files[0]))
    return {tensor.name: tensor.SerializeToString() for tensor in model.graph.initializer}


def test_each_size_is_in_the_manifest_once_and_all_files_are_verified(sizes: Bundle, spec: Spec) -> None:
    assert sizes.sizes == ((spec.width, spec.height), SMALL, TALL)
    assert sizes.manifest["format_version"] == 3
    sizes.verify()
    small = sizes.at(*SMALL)
    assert sizes.multiply_accumulates and small.multiply_accumulates
    assert small.multiply_accumulates / sizes.multiply_accumulates == pytest.approx(320 * 256 / (640 * 480), rel=0.01)
    assert (small.spec.width, small.spec.height) == SMALL and small.sizes == sizes.sizes
    with pytest.raises(BundleError, match="no input size 64x64; it has: 640x480, 320x256, 480x640"):
        sizes.at(64, 64)


def test_a_changed_file_of_another_size_is_found(sizes: Bundle, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(sizes.path, copy)
    file = copy / sizes.at(*TALL).artifact("tflite", "int8").files[0].path
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match="was changed after the build"):
        Bundle.load(copy).verify()


def test_the_first_size_is_the_bundle_that_is_built_alone(sizes: Bundle, mesh_bundle: Bundle) -> None:
    assert sizes.artifacts == mesh_bundle.artifacts and sizes.meshes == mesh_bundle.meshes


@pytest.mark.parametrize("size", [SMALL, TALL])
def test_weights_and_quantisation_parameters_are_the_same_at_every_size(sizes: Bundle, size: tuple[int, int]) -> None:
    for precision in ("fp32", "int8"):
        assert initialisers(sizes.at(*size), precision) == initialisers(sizes, precision)


def test_a_size_is_the_network_that_is_exported_for_it(sizes: Bundle, portrait_frame: np.ndarray) -> None:
    """Exported anew for that size by PyTorch, FP32 finds the same faces to the last digits."""
    request = demo_file().read()
    small = sizes.at(*SMALL).spec
    model = request.graph(replace(small, mesh=None), 18)
    from retinaface_edge.runtime import backends

    alone = Detector(replace(small, mesh=None), backends.load("onnxruntime", small, [model.SerializeToString()], 1))
    expected = alone.detect(portrait_frame)
    found = Detector.load(sizes.at(*SMALL), "onnxruntime", "fp32").detect(portrait_frame)
    assert len(expected) == len(found) == 1
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)


@pytest.mark.parametrize("size", [SMALL, TALL])
def test_int8_finds_at_every_size_what_fp32_finds(sizes: Bundle, size: tuple[int, int], shared: Path) -> None:
    from retinaface_edge.runtime.io.images import read_image

    photographs = [read_image(path) for path in sorted((shared / "calibration").iterdir())[:60]]
    bundle = sizes.at(*size)
    with Detector.load(bundle, "onnxruntime", "fp32") as detector:
        expected = [detector.detect(picture).boxes for picture in photographs]
    assert sum(map(len, expected)) > 60
    for backend in INTEGERS:
        with Detector.load(bundle, backend, "int8") as detector:
            found = [detector.detect(picture).boxes for picture in photographs]
        assert detection_drift(expected, found) < 15


def test_a_mesh_is_found_at_every_size(sizes: Bundle, portrait_frame: np.ndarray) -> None:
    with FittingDetector.load(sizes, "openvino", "int8") as detector:
        whole = detector.detect(portrait_frame, mesh=True)
        half = detector.detect(np.ascontiguousarray(portrait_frame[::2, ::2]), mesh=True)
    assert whole.vertices is not None and half.vertices is not None
    side = float(np.ptp(whole.boxes[0, ::2]))
    assert np.abs(half.vertices[0, :, :2] * 2 - whole.vertices[0, :, :2]).mean() < 0.05 * side


def test_each_frame_goes_through_the_size_that_fits(sizes: Bundle, portrait_frame: np.ndarray) -> None:
    frames = [portrait_frame[:256, :256], portrait_frame[:480], portrait_frame[:, :300], portrait_frame[:256, :256]]
    expected = [SMALL, (640, 480), TALL, SMALL]
    with FittingDetector.load(sizes, "openvino", "int8") as detector:
        one_by_one = [detector.detect(frame).to_dict() for frame in frames]
        assert [faces.to_dict() for faces in detector.detect_many(iter(frames))] == one_by_one
    for frame, size, found in zip(frames, expected, one_by_one, strict=True):
        with Detector.load(sizes.at(*size), "openvino", "int8") as alone:
            assert alone.detect(frame).to_dict() == found


def test_the_command_line_takes_a_size_or_fits_each_picture(
    sizes: Bundle, tmp_path: Path, astronaut: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def boxes(*arguments: str) -> Sequence[object]:
        assert main(["detect", str(sizes.path), str(astronaut), "--json", "-", *arguments]) == 0
        return [face["box"] for face in json.loads(capsys.readouterr().out)["faces"]]

    fitted = boxes()
    assert fitted == boxes("--size", "480x640") or fitted == boxes("--size", "640x480")
    assert fitted != boxes("--size", "320x256")
    assert main(["detect", str(sizes.path), str(astronaut), "--size", "96x96"]) == 2
    assert "it has: 640x480, 320x256, 480x640" in capsys.readouterr().err
    assert main(["inspect", str(sizes.path)]) == 0
    assert "1x480x640x3 or 1x256x320x3 or 1x640x480x3" in capsys.readouterr().out
    assert main(["inspect", str(sizes.path), "--sbom", str(tmp_path / "sbom.json")]) == 0
    references = re.findall(r'"bom-ref": "(.*)"', (tmp_path / "sbom.json").read_text())
    assert len(references) == len(set(references)) and "artifact:tflite:int8:320x256" in references


def test_choose_compares_the_sizes_of_a_bundle(sizes: Bundle, astronaut: Path, tmp_path: Path) -> None:
    """Each is a candidate of its own, and all are compared on the same pictures."""
    output = tmp_path / "choose.json"
    command = ["choose", str(sizes.path), "--images", str(astronaut.parent), "--artifact", "openvino int8", "--quick"]
    assert main([*command, "--budget-ms", "5000", "--json", str(output), "--no-cache"]) == 0
    result = read_result(output, ChooseResult)
    assert {bundle.input_px for bundle in result.bundles} == {(640, 480), SMALL, TALL}
    assert {candidate.bundle for candidate in result.candidates} == {f"bundle {w}x{h}" for w, h in sizes.sizes}
    assert result.recommendation.bundle in {candidate.bundle for candidate in result.candidates}


def test_a_size_that_is_not_there_is_refused_before_anything_is_counted(
    sizes: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cost", str(sizes.path), "--size", "96x96"]) == 2
    assert "no input size 96x96; it has: 640x480, 320x256, 480x640" in capsys.readouterr().err


def test_every_size_has_its_c_header(sizes: Bundle) -> None:
    for width, height in (SMALL, TALL):
        header = (sizes.path / f"c/{width}x{height}/retinaface_edge.h").read_text()
        assert f"#define RFE_INPUT_WIDTH {width}\n#define RFE_INPUT_HEIGHT {height}\n" in header


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: {**spec, "mean": [1, 2, 3]}, "for 320x256 it has another detector than for its first size"),
        (lambda spec: {**spec, "width": 640, "height": 480}, "it has the input size 640x480 twice"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(sizes: Bundle, tmp_path: Path, change: object, message: str) -> None:
    manifest = json.loads((sizes.path / MANIFEST).read_text())
    first = manifest["sizes"][0]
    assert callable(change)
    first["spec"] = change(first["spec"])
    (tmp_path / MANIFEST).write_bytes(serialise(manifest))
    with pytest.raises(BundleError, match=message):
        Bundle.load(tmp_path)


def test_a_graph_that_depends_on_its_size_is_refused(spec: Spec) -> None:
    output = spec.outputs[0]
    shape = onnx.numpy_helper.from_array(np.array(output.shape), "shape")
    count = int(np.prod(output.shape))
    flat = onnx.numpy_helper.from_array(np.zeros(count, np.float32), "flat")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Reshape", ["flat", "shape"], [output.name])],
        "fixed",
        [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, spec.input_shape)],
        [onnx.helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, output.shape)],
        [shape, flat],
    )
    with pytest.raises(GraphError, match="320x256"):
        with_input_size(onnx.helper.make_model(graph), replace(spec, width=320, height=256))
