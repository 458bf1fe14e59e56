"""The C headers give the bytes of NumPy before the network, and its faces after it."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_cases import (
    COMPILERS,
    STRICT,
    WARNINGS,
    OutputCase,
    as_rows,
    compile_driver,
    frame_case,
    output_case,
    read_faces,
    run_driver,
)
from detectors import SPECS as DETECTORS

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait, scenes
from retinaface_edge.runtime import Bundle, Detector, Spec
from retinaface_edge.runtime.c.generate import EXAMPLE, c_files, c_header
from retinaface_edge.runtime.contract import Mesh
from retinaface_edge.runtime.ops.align import aligned
from retinaface_edge.runtime.ops.faces import Face
from retinaface_edge.runtime.ops.letterbox import letterbox, letterbox_for
from retinaface_edge.runtime.ops.postprocess import Bounds, QuantParams

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
@pytest.mark.parametrize("spec", DETECTORS.values(), ids=DETECTORS)
def test_the_faces_are_the_same_in_the_same_order(
    tmp_path: Path, compiler: str, flags: tuple[str, ...], spec: Spec
) -> None:
    rng = np.random.default_rng(spec.height)
    cases = [output_case(rng, spec) for _ in range(250)]
    driver = compile_driver(spec, tmp_path, compiler, *flags)
    stream = memoryview(run_driver([str(driver)], b"".join(case.encoded(spec) for case in cases)))
    position, found = 0, 0
    for case in cases:
        expected = as_rows(case.expected(spec))
        count, faces, position = read_faces(stream, position, spec.landmarks)
        assert count == len(expected)
        np.testing.assert_allclose(faces, expected, rtol=1e-12, atol=1e-4)
        found += count
    assert position == len(stream)
    assert found > 1000  # the cases are not all empty


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("name", ["retinaface", "yunet", "scrfd-boxes"])
def test_bounds_keep_the_best_and_thresholds_are_checked(tmp_path: Path, compiler: str, name: str) -> None:
    spec = DETECTORS[name]
    rng = np.random.default_rng(11)
    driver = compile_driver(spec, tmp_path, compiler, "-O1")
    pairs = []
    while len(pairs) < 60:
        case = output_case(rng, spec)
        bounds = Bounds(int(rng.integers(1, 40)), int(rng.integers(1, 12)))
        pairs.append((case, bounds))
    outputs = [np.zeros(output.shape, np.float32) for output in spec.outputs]
    wrong = [
        OutputCase((96, 64), outputs, [QuantParams()] * len(outputs), score, iou)
        for score, iou in ((-0.1, 0.4), (1.1, 0.4), (0.5, 2.0), (float("nan"), 0.4), (0.5, float("nan")))
    ]
    integers = [np.zeros(output.shape, np.int8) for output in spec.outputs]
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        params = [QuantParams()] * len(outputs)
        params[0] = QuantParams(scale, 0)
        wrong.append(OutputCase((96, 64), integers, params, 0.5, 0.4))
    cases = [case.encoded(spec, bounds) for case, bounds in pairs] + [case.encoded(spec) for case in wrong]
    stream = memoryview(run_driver([str(driver)], b"".join(cases)))
    position, bounded = 0, 0
    for case, bounds in pairs:
        count, faces, position = read_faces(stream, position, spec.landmarks)
        expected = as_rows(case.expected(spec, bounds))
        assert count == len(expected) <= bounds.max_faces
        np.testing.assert_allclose(faces, expected, rtol=1e-12, atol=1e-4)
        bounded += len(case.expected(spec)) > count
    assert bounded > 5  # the bounds have left faces out
    for _ in wrong:
        count, _, position = read_faces(stream, position, spec.landmarks)
        assert count == -1
    assert position == len(stream)


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("standard", ["c99", "c++11", "c++14", "c++17", "c++20"])
def test_headers_compile_as_c_and_as_cpp_without_a_warning(tmp_path: Path, compiler: str, standard: str) -> None:
    for name in ("retinaface", "scrfd", "yunet", "distances-object"):
        compile_driver(DETECTORS[name], tmp_path / name, compiler, "-fsyntax-only", standard=standard)
    for name, content in c_files(Spec(mesh=Mesh())).items():
        (tmp_path / name).write_bytes(content)
    unit = tmp_path / "unit.c"
    unit.write_text(
        '#include "retinaface_edge_mesh.h"\n'
        "void use(const rfe_output *outputs, const rfe_letterbox *box, const rfe_face *face, float *numbers);\n"
        "void use(const rfe_output *outputs, const rfe_letterbox *box, const rfe_face *face, float *numbers) {\n"
        "    rfe_mesh_describe(outputs, box, face, numbers);\n}\n"
    )
    language = ["-x", "c++" if "++" in standard else "c", f"-std={standard}"]
    command = [compiler, *language, *WARNINGS, "-c", str(unit), "-o", str(tmp_path / "unit.o")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_header_holds_only_what_its_detector_needs() -> None:
    headers = {name: c_header(spec) for name, spec in DETECTORS.items()}
    for text, names in {
        "exp(rfe_variances[1]": {"retinaface", "slim", "yunet", "68-landmarks"},
        "object": {"yunet", "distances-object"},
        "RFE_LANDMARKS": set(DETECTORS) - {"scrfd-boxes", "distances-object"},
        "rfe_align(": {"retinaface", "slim", "scrfd", "yunet"},
        "rfe_anchor_sizes": {"retinaface", "slim", "yunet", "68-landmarks"},
    }.items():
        assert {name for name, header in headers.items() if text in header} == names, text
    for header in headers.values():
        assert "<" not in header.replace("#include <", "").replace(" < ", "").replace(" <= ", "").replace("<<", "")
        assert len(header) < 33_000


@pytest.mark.parametrize(("compiler", "flags"), BUILDS)
def test_aligned_crops_are_within_one_grey_level(tmp_path: Path, compiler: str, flags: tuple[str, ...]) -> None:
    spec = DETECTORS["retinaface"]
    driver = compile_driver(spec, tmp_path, compiler, *flags)
    rng = np.random.default_rng(7)
    frames, stream, expected = [frame_case(rng, spec) for _ in range(40)], b"", []
    for frame in frames:
        height, width = frame.pixels.shape[:2]
        size = int(rng.choice([1, 40, 112, 128]))
        landmarks = rng.uniform(-0.2, 1.2, (5, 2)) * (width, height)
        stream += frame.encoded_for_crop(size, landmarks)
        face = Face(0.9, (0.0, 0.0, 1.0, 1.0), tuple((x, y) for x, y in landmarks.tolist()))
        expected.append(aligned(frame.pixels, face, size))
    same_point = np.full((5, 2), 3.0)
    stream += frames[0].encoded_for_crop(112, same_point) + frames[0].encoded_for_crop(112, same_point * np.nan)
    got = memoryview(run_driver([str(driver)], stream))
    position = 0
    for crop in expected:
        assert struct.unpack_from("=i", got, position) == (0,)
        found = np.frombuffer(got, np.uint8, crop.size, position + 4).reshape(crop.shape)
        assert np.abs(found.astype(int) - crop).max() <= 1
        position += 4 + crop.size
    assert struct.unpack("=2i", got[position:]) == (-1, -1)


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
            quant = detector._network.quant_params[index]
            lines.append(f"{tmp_path / f'{index}.raw'} {output.dtype} {quant.scale!r} {quant.zero_point}\n")
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
