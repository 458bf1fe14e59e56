"""The C twin gives the bytes of NumPy before the network, and its faces after it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_cases import (
    COMPILERS,
    STRICT,
    OutputCase,
    as_rows,
    compile_driver,
    frame_case,
    output_case,
    read_faces,
    run_driver,
)

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait, scenes
from retinaface_edge.runtime import Bundle, Detector, Spec
from retinaface_edge.runtime.c.generate import EXAMPLE, HEADER, SOURCES, c_files, c_header
from retinaface_edge.runtime.ops.letterbox import letterbox, letterbox_for
from retinaface_edge.runtime.ops.postprocess import Grid

pytestmark = pytest.mark.skipif(not COMPILERS, reason="no gcc and no clang here")
SPECS = (Spec(96, 64), Spec(64, 128), Spec(320, 256))
SANITIZED = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
BUILDS = [(name, ("-O3",)) for name in COMPILERS] + [(name, SANITIZED) for name in COMPILERS[:1]]


@pytest.mark.parametrize(
    ("compiler", "flags"), BUILDS, ids=lambda value: value if isinstance(value, str) else value[-1]
)
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"{spec.width}x{spec.height}")
def test_the_input_is_the_same_to_the_byte(tmp_path: Path, compiler: str, flags: tuple[str, ...], spec: Spec) -> None:
    rng = np.random.default_rng(spec.width)
    cases = [frame_case(rng, spec) for _ in range(300)]
    driver = compile_driver(spec, tmp_path, compiler, *flags)
    got = np.frombuffer(run_driver([str(driver)], b"".join(case.encoded() for case in cases)), np.uint8)
    for case, image in zip(cases, got.reshape(-1, *spec.input_shape), strict=True):
        np.testing.assert_array_equal(image, case.expected(spec), f"{case.pixels.shape} {case.pixels.strides}")


@pytest.mark.parametrize(
    ("compiler", "flags"), BUILDS, ids=lambda value: value if isinstance(value, str) else value[-1]
)
@pytest.mark.parametrize("spec", SPECS[:2], ids=lambda spec: f"{spec.width}x{spec.height}")
def test_the_faces_are_the_same_in_the_same_order(
    tmp_path: Path, compiler: str, flags: tuple[str, ...], spec: Spec
) -> None:
    rng = np.random.default_rng(spec.height)
    cases = [output_case(rng, spec) for _ in range(600)]
    driver = compile_driver(spec, tmp_path, compiler, *flags)
    stream = memoryview(run_driver([str(driver)], b"".join(case.encoded(spec) for case in cases)))
    position, found = 0, 0
    for case in cases:
        expected = as_rows(case.expected(spec))
        count, faces, position = read_faces(stream, position)
        assert count == len(expected)
        np.testing.assert_allclose(faces, expected, rtol=1e-12, atol=1e-4)
        found += count
    assert position == len(stream)
    assert found > 1000  # the cases are not all empty


@pytest.mark.parametrize("compiler", COMPILERS)
def test_too_little_room_is_an_error_and_few_faces_are_the_best(tmp_path: Path, compiler: str) -> None:
    spec = SPECS[0]
    outputs = [np.zeros(output.shape, np.float32) for output in spec.outputs]
    case = OutputCase((96, 64), outputs, [Grid()] * 9, 0.5, 0.4)
    driver = compile_driver(spec, tmp_path, compiler, "-O1")
    anchors = len(spec.anchors)
    cases = [case.encoded(spec, capacity=anchors - 1), case.encoded(spec, anchors, max_faces=3)]
    for score, iou in ((-0.1, 0.4), (1.1, 0.4), (0.5, 2.0), (float("nan"), 0.4), (0.5, float("nan"))):
        cases.append(OutputCase((96, 64), outputs, case.grids, score, iou).encoded(spec))
    stream = memoryview(run_driver([str(driver)], b"".join(cases)))
    count, _, position = read_faces(stream, 0)
    assert count == -2
    count, faces, position = read_faces(stream, position)
    np.testing.assert_allclose(faces, as_rows(case.expected(spec))[:3])
    while position < len(stream):
        count, _, position = read_faces(stream, position)
        assert count == -1


def test_the_header_in_the_repository_is_that_of_the_default_spec() -> None:
    assert c_header(Spec()) == (SOURCES / HEADER).read_text()
    assert set(c_files(Spec())) == {HEADER, EXAMPLE}


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_example_program_finds_the_face(bundle: Bundle, tmp_path: Path, compiler: str, precision: str) -> None:
    for name, content in c_files(bundle.spec).items():
        (tmp_path / name).write_bytes(content)
    example = tmp_path / "example"
    build = [compiler, *STRICT, "-O2", str(tmp_path / EXAMPLE), "-lm", "-o", str(example)]
    subprocess.run(build, check=True, capture_output=True)
    frame = portrait()
    height, width = frame.shape[:2]
    picture = tmp_path / "frame.ppm"
    picture.write_bytes(f"P6\n{width} {height}\n255\n".encode() + frame[:, :, ::-1].tobytes())
    raw = tmp_path / "input.raw"
    subprocess.run([str(example), str(picture), str(raw)], check=True)

    with Detector.load(bundle, "tflite", precision) as detector:
        image = np.empty(bundle.spec.input_shape, np.uint8)
        letterbox(bundle.spec, letterbox_for(bundle.spec, width, height), frame, image)
        assert raw.read_bytes() == image.tobytes()
        assert detector._network is not None
        lines = []
        for index, output in enumerate(detector._network.run(image)):
            (tmp_path / f"{index}.raw").write_bytes(output.tobytes())
            grid = detector._network.grids[index]
            lines.append(f"{tmp_path / f'{index}.raw'} {output.dtype} {grid.scale!r} {grid.zero_point}\n")
        (tmp_path / "outputs.txt").write_text("".join(lines))
        expected = as_rows(detector.detect(frame))
    printed = subprocess.run(
        [str(example), str(picture), str(raw), str(tmp_path / "outputs.txt")],
        check=True,
        capture_output=True,
        text=True,
    )
    got = np.array([line.split() for line in printed.stdout.splitlines()], float)
    assert len(got) >= 1
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_the_example_says_what_is_wrong(tmp_path: Path) -> None:
    for name, content in c_files(Spec()).items():
        (tmp_path / name).write_bytes(content)
    example = tmp_path / "example"
    subprocess.run([COMPILERS[0], "-std=c99", str(tmp_path / EXAMPLE), "-lm", "-o", str(example)], check=True)
    (tmp_path / "short.ppm").write_bytes(b"P6\n8 8\n255\n" + scenes(1)[0].tobytes()[:10])
    for name, message in (("none.ppm", "cannot be opened"), ("short.ppm", "ends too early")):
        result = subprocess.run([str(example), str(tmp_path / name), "x"], capture_output=True, text=True)
        assert result.returncode == 2
        assert message in result.stderr
