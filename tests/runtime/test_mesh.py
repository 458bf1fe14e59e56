"""The dense branch around its network: description, placing, pose, files, and the C twin of it."""

from __future__ import annotations

import io
import struct
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from c_cases import COMPILERS, STRICT
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from retinaface_edge.runtime import Detector, Faces, Spec
from retinaface_edge.runtime.backends import Network
from retinaface_edge.runtime.c.generate import MESH_HEADER, c_files
from retinaface_edge.runtime.contract import Contract
from retinaface_edge.runtime.mesh.branch import DenseBranch, describe, head_pose, place, relative
from retinaface_edge.runtime.mesh.files import barycentric, mesh_files, mesh_json, sample_texture
from retinaface_edge.runtime.mesh.topology import topology
from retinaface_edge.runtime.ops.letterbox import letterbox_for
from retinaface_edge.runtime.ops.postprocess import QuantParams, RawOutput
from retinaface_edge.runtime.spec import Mesh

SPEC = Spec(96, 64, mesh=Mesh(channels=6, batch=3))
seeds = st.integers(0, 2**32 - 1)


def random_faces(random: np.random.Generator, count: int) -> Faces:
    """Faces in pixels of the input, some of their landmarks outside it."""
    low = random.uniform(-10, 70, (count, 2))
    boxes = np.concatenate([low, low + random.uniform(4, 90, (count, 2))], axis=1)
    return Faces(random.random(count), boxes, random.uniform(-20, 120, (count, 5, 2)))


def random_features(random: np.random.Generator, dtype: type = np.float32) -> tuple[list[RawOutput], list[QuantParams]]:
    if dtype == np.float32:
        return [random.normal(size=o.shape).astype(np.float32) for o in SPEC.features], [QuantParams()] * 3
    features: list[RawOutput] = [random.integers(-128, 128, o.shape).astype(np.int8) for o in SPEC.features]
    return features, [QuantParams(0.01 * (level + 1), level - 100) for level in range(3)]


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    y, p, r = np.deg2rad([-yaw, -pitch, roll])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    about_z = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_x @ about_y)


@given(seeds)
def test_features_are_sampled_as_scipy_samples_them(seed: int) -> None:
    random = np.random.default_rng(seed)
    faces, (features, quant_params) = random_faces(random, 3), random_features(random)
    described = describe(SPEC, features, quant_params, faces.boxes, faces.landmarks)
    expected = []
    for feature, stride in zip(features, SPEC.strides, strict=True):
        rows, columns = faces.landmarks[..., 1] / stride - 0.5, faces.landmarks[..., 0] / stride - 0.5
        planes = [
            ndimage.map_coordinates(feature[0, :, :, c].astype(np.float64), [rows, columns], order=1, mode="nearest")
            for c in range(6)
        ]
        expected.append(np.stack(planes, axis=-1).reshape(3, -1))
    np.testing.assert_allclose(described[:, :90], np.concatenate(expected, axis=1), atol=1e-5)
    sides = faces.boxes[:, 2:] - faces.boxes[:, :2]
    size = np.sqrt(sides.prod(axis=1))
    np.testing.assert_allclose(
        described[:, -2:], np.stack([np.log2(size) - 6, 8 * (sides[:, 0] / size - 1)], 1), atol=1e-5
    )
    centre = 0.5 * (faces.boxes[:, :2] + faces.boxes[:, 2:])
    offsets = 8 * (faces.landmarks - centre[:, None]) / size[:, None, None]
    np.testing.assert_allclose(described[:, 90:100], offsets.reshape(3, 10), rtol=1e-5, atol=1e-5)


def test_integers_are_described_as_what_they_stand_for() -> None:
    random = np.random.default_rng(0)
    faces, (features, quant_params) = random_faces(random, 5), random_features(random, np.int8)
    real = [
        ((f.astype(np.float64) - g.zero_point) * g.scale).astype(np.float32)
        for f, g in zip(features, quant_params, strict=True)
    ]
    np.testing.assert_allclose(
        describe(SPEC, features, quant_params, faces.boxes, faces.landmarks),
        describe(SPEC, real, [QuantParams()] * 3, faces.boxes, faces.landmarks),
        atol=1e-5,
    )


@given(seeds)
def test_relative_undoes_place(seed: int) -> None:
    random = np.random.default_rng(seed)
    boxes, vertices = random_faces(random, 4).boxes, random.normal(size=(4, 468, 3))
    np.testing.assert_allclose(relative(boxes, place(boxes, vertices)), vertices, atol=1e-9)


class Echo(Network):
    """A network whose vertices tell which face came in which column: the face's last number, everywhere."""

    quant_params = (QuantParams(),)

    def __init__(self) -> None:
        self.calls = 0

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        self.calls += 1
        return [np.repeat(image[..., -1:], 3 * 468, axis=3)]


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("count", [0, 1, 3, 7])
def test_all_faces_go_through_in_as_few_batches_as_can_be(count: int, scale: int) -> None:
    random = np.random.default_rng(count)
    faces, (features, quant_params) = random_faces(random, count), random_features(random)
    network, placement = Echo(), letterbox_for(SPEC, 96 * scale, 64 * scale)
    scaled = Faces(faces.scores, faces.boxes * scale, faces.landmarks * scale)
    found = DenseBranch(SPEC, network, quant_params).add_meshes(scaled, features, placement)
    assert network.calls == -(-count // 3)
    assert found.vertices is not None and found.vertices.shape == (count, 468, 3)
    sides = scaled.boxes[:, 2:] - scaled.boxes[:, :2]
    size = np.sqrt(sides.prod(axis=1))
    echoed = 8 * (sides[:, 0] - size)  # each face's last number, times its size
    np.testing.assert_allclose(found.vertices[:, 0, 2], echoed, rtol=1e-4, atol=1e-4)
    middle = scaled.boxes[:, [0, 2]].mean(axis=1)
    np.testing.assert_allclose(found.vertices[:, 0, 0], middle + echoed, rtol=1e-4, atol=1e-4)


class Fixed(Echo):
    """A network that gives each column of a batch vertices of its own, whatever comes in."""

    def __init__(self, vertices: np.ndarray) -> None:
        super().__init__()
        self.vertices = vertices

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        return [self.vertices.reshape(1, 1, len(self.vertices), -1)]


@pytest.mark.parametrize("size", [(3000, 9), (9, 3000), (301, 207)])
def test_vertices_are_stretched_with_a_frame_whose_pixels_are_not_square(size: tuple[int, int]) -> None:
    """A frame of 3000 × 9 is 96 × 1 in the input: its pixels are three times as wide there as they are high."""
    random = np.random.default_rng(4)
    faces, (features, quant_params) = random_faces(random, 3), random_features(random)
    placement = letterbox_for(SPEC, *size)
    scale = np.array([size[0] / placement.width, size[1] / placement.height])
    vertices = random.normal(size=(3, 468, 3)).astype(np.float32)
    framed = Faces(faces.scores, faces.boxes * np.tile(scale, 2), faces.landmarks * scale)
    found = DenseBranch(SPEC, Fixed(vertices), quant_params).add_meshes(framed, features, placement).vertices
    expected = place(faces.boxes, vertices.astype(np.float64)) * (*scale, np.sqrt(scale.prod()))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


class Crowded(Echo):
    """A network that another thread would find busy."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = threading.Lock()

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        assert self.inside.acquire(blocking=False), "two threads at once"
        time.sleep(0.01)
        found = super().run(image)
        self.inside.release()
        return found


def test_two_threads_take_turns_and_each_gets_its_own_faces() -> None:
    random = np.random.default_rng(0)
    branch, placement = DenseBranch(SPEC, Crowded(), [QuantParams()] * 3), letterbox_for(SPEC, 96, 64)
    cases = [(random_faces(random, 2), random_features(random)[0]) for _ in range(4)]
    alone = [branch.add_meshes(*case, placement).vertices for case in cases]
    with ThreadPoolExecutor(4) as threads:
        together = threads.map(lambda case: branch.add_meshes(*case, placement).vertices, cases)
        for found, expected in zip(together, alone, strict=True):
            np.testing.assert_array_equal(found, expected)


@given(st.floats(-80, 80), st.floats(-80, 80), st.floats(-170, 170), st.floats(0.1, 50), seeds)
def test_the_pose_of_a_turned_face_is_how_it_was_turned(
    yaw: float, pitch: float, roll: float, scale: float, seed: int
) -> None:
    shift = np.random.default_rng(seed).uniform(-500, 500, 3)
    face = (topology().canonical * (1.0, -1.0, -1.0)) @ rotation(yaw, pitch, roll).T * scale + shift
    np.testing.assert_allclose(head_pose(face), (yaw, pitch, roll), atol=1e-6)


def test_pose_has_the_signs_that_its_words_say() -> None:
    face = topology().canonical * (1.0, -1.0, -1.0)
    nose, forehead = 1, 10
    right, up, leaning = (face @ rotation(*angles).T for angles in ((40, 0, 0), (0, 40, 0), (0, 0, 40)))
    assert right[nose, 0] > face[nose, 0] + 1 and up[nose, 1] < face[nose, 1] - 1
    assert leaning[forehead, 0] > face[forehead, 0] + 1


def test_the_topology_is_one_sheet_with_two_eyes_and_a_mouth_open() -> None:
    mesh = topology()
    assert mesh.triangles.shape == (898, 3) and mesh.uv.shape == (468, 2)
    across = np.linalg.norm(mesh.canonical[:, np.newaxis] * (-1.0, 1.0, 1.0) - mesh.canonical, axis=2)
    np.testing.assert_array_equal(mesh.mirror, across.argmin(axis=1))
    assert across.min(axis=1).max() == 0.0
    normals = np.cross(*(np.diff(mesh.canonical[mesh.triangles], axis=1).transpose(1, 0, 2)))
    assert normals[np.argmax(mesh.canonical[mesh.triangles].mean(axis=1)[:, 2]), 2] > 0.0, "anticlockwise from outside"
    turned = {frozenset(triangle) for triangle in mesh.mirror[mesh.triangles].tolist()}
    assert turned == {frozenset(triangle) for triangle in mesh.triangles.tolist()} and len(turned) == 898
    edges = {tuple(edge) for edge in mesh.edges.tolist()}
    uses = np.zeros(len(edges), int)
    place_of = {edge: index for index, edge in enumerate(sorted(edges))}
    for a, b, c in mesh.triangles.tolist():
        for edge in ((a, b), (b, c), (c, a)):
            uses[place_of[tuple(sorted(edge))]] += 1
    assert set(uses) == {1, 2}


def flat_face() -> np.ndarray:
    """The canonical face in a picture of 200 × 200."""
    return topology().canonical * (9.0, -9.0, -9.0) + (100.0, 100.0, 0.0)


def gradient() -> np.ndarray:
    """Red rises to the right, green downwards; BGR."""
    y, x = np.mgrid[:200, :200]
    return np.stack([np.zeros_like(x), y, x], axis=-1).astype(np.uint8)


def test_an_obj_has_the_mesh_its_texture_coordinates_and_a_texture_from_the_picture() -> None:
    files = mesh_files("obj", "face", flat_face(), gradient())
    assert set(files) == {"face.obj", "face.mtl", "face.png"}
    lines = [line.split() for line in files["face.obj"].decode().splitlines()]
    points = np.array([line[1:] for line in lines if line[0] == "v"], float)
    np.testing.assert_allclose(points * (1, -1, -1), flat_face(), atol=1e-3)
    assert sum(line[0] == "vt" for line in lines) == 468
    faces = np.array([[int(word.split("/")[0]) for word in line[1:]] for line in lines if line[0] == "f"])
    np.testing.assert_array_equal(faces - 1, topology().triangles)
    assert b"map_Kd face.png" in files["face.mtl"] and ["mtllib", "face.mtl"] in lines
    assert Image.open(io.BytesIO(files["face.png"])).size == (256, 256)


def test_the_texture_shows_at_each_vertex_what_the_picture_shows_there() -> None:
    vertices = flat_face()
    texture = sample_texture(vertices, gradient()[:, :, ::-1], 512)
    places = np.rint(topology().uv * 512 - 0.5).astype(int)
    inside = np.all((places > 1) & (places < 510), axis=1)
    shown = texture[places[inside, 1], places[inside, 0]].astype(float)
    covered = shown.any(axis=1)
    assert covered.mean() > 0.9
    difference = np.abs(shown[covered][:, :2] - (vertices[inside][covered, :2] - 0.5))
    assert np.median(difference) < 1.0
    assert np.percentile(difference, 90) < 3.0


def unrolled(scale: float, shift: float) -> np.ndarray:
    """A face that lies in the picture as its texture does: any interpolation in its triangles is one straight map."""
    return np.concatenate([topology().uv * scale + shift, np.zeros((468, 1))], axis=1)


def test_a_texel_has_the_colour_at_its_centre_and_no_texel_of_the_face_is_left_out() -> None:
    side = 256
    texture = sample_texture(unrolled(180, 10), gradient()[:, :, ::-1] + np.array([0, 0, 1], np.uint8), side)
    covered = texture[:, :, 2] > 0
    rows, columns = np.nonzero(covered)
    centres = (np.stack([columns, rows], axis=1) + 0.5) / side * 180 + 10
    # The gradient's pixel n has its colour n at n + 1/2.
    assert np.abs(texture[covered][:, :2] - (centres - 0.5)).max() <= 0.5 + 1e-6
    a, b, c = np.moveaxis(topology().uv[topology().triangles], 1, 0)
    area = 0.5 * np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).sum()
    assert covered.mean() == pytest.approx(area, rel=0.005)


def test_a_texel_on_a_vertex_belongs_to_a_triangle_around_it() -> None:
    """Rounding would have each of them leave it to the others."""
    side = 500
    places = topology().uv * side - 0.5
    on = places[np.all(np.abs(places - np.rint(places)) < 1e-9, axis=1)].round().astype(int)
    assert len(on) == 4
    texture = sample_texture(unrolled(180, 10), np.full((200, 200, 3), 9, np.uint8), side)
    assert (texture[on[:, 1], on[:, 0]] == 9).all()


def test_barycentric_weights_give_the_point_again_and_a_triangle_without_area_holds_none() -> None:
    random = np.random.default_rng(0)
    corners, points = random.normal(size=(3, 2)), random.normal(size=(4, 5, 2))
    weights = barycentric(corners, points)
    np.testing.assert_allclose(weights.sum(axis=-1), 1.0)
    np.testing.assert_allclose(weights @ corners, points)
    line = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, 6.0]])
    np.testing.assert_array_equal(barycentric(line, points), np.full((4, 5, 3), -1.0))


def test_a_ply_has_the_mesh_of_the_obj_and_at_each_vertex_the_colour_of_the_picture() -> None:
    """Read by the format's own words: the header names what each column is."""
    vertices, frame = flat_face(), gradient() + np.array([77, 0, 0], np.uint8)
    head, body = mesh_files("ply", "face", vertices, frame)["face.ply"].decode().split("end_header\n")
    names = [line.split()[-1] for line in head.splitlines() if line.startswith("property") and "list" not in line]
    rows = [line.split() for line in body.splitlines()]
    columns = dict(zip(names, np.array(rows[:468], float).T, strict=True))
    np.testing.assert_allclose(np.stack([columns[c] for c in "xyz"], 1) * (1, -1, -1), vertices, atol=1e-3)
    colours = np.stack([columns[c] for c in ("red", "green", "blue")], 1)
    np.testing.assert_allclose(colours[:, :2], vertices[:, :2] - 0.5, atol=0.5 + 1e-6)
    assert (colours[:, 2] == 77).all()
    np.testing.assert_array_equal(np.array(rows[468:], int), np.insert(topology().triangles, 0, 3, axis=1))
    words = [line.split() for line in mesh_files("obj", "face", vertices, frame)["face.obj"].decode().splitlines()]
    for kind, axes in (("v", "xyz"), ("vt", "st")):
        listed = np.array([line[1:] for line in words if line[0] == kind], float)
        np.testing.assert_array_equal(listed, np.stack([columns[c] for c in axes], 1))
    np.testing.assert_allclose(np.stack([columns["s"], 1 - columns["t"]], 1), topology().uv, atol=1e-6)


def test_a_ply_counts_what_it_holds() -> None:
    text = mesh_files("ply", "face", flat_face(), gradient())["face.ply"].decode()
    head, body = text.split("end_header\n")
    assert "element vertex 468" in head and "element face 898" in head
    rows = body.splitlines()
    assert len(rows) == 468 + 898
    first = [float(word) for word in rows[0].split()]
    x, y, z = flat_face()[0]
    np.testing.assert_allclose(first[:3], (x, -y, -z), atol=1e-3)
    np.testing.assert_allclose(first[5:], (x - 0.5, y - 0.5, 0), atol=1.0)


@pytest.mark.parametrize("shift", [(-150, 0), (150, 0), (0, -150), (0, 150), (900, -900)])
def test_a_face_that_leaves_the_picture_has_the_colours_of_its_edge(shift: tuple[int, int]) -> None:
    vertices = flat_face() + np.array((*shift, 0.0))
    rows = mesh_files("ply", "face", vertices, gradient())["face.ply"].decode().split("end_header\n")[1].splitlines()
    colours = np.array([row.split()[5:] for row in rows[:468]], float)
    nearest = np.clip(vertices[:, :2] - 0.5, 0, 199)
    np.testing.assert_allclose(colours[:, :2], nearest, atol=0.51)


def test_json_has_pixels_of_the_frame_and_the_pose() -> None:
    content = mesh_json(flat_face())
    np.testing.assert_allclose(content["vertices"], flat_face(), atol=1e-3)
    assert max(abs(angle) for angle in content["pose"].values()) < 0.01
    assert (len(content["triangles"]), len(content["uv"])) == (898, 468)


DRIVER = """
#include "retinaface_edge_mesh.h"
#include <stdio.h>
#include <stdlib.h>
static void get(void *target, size_t bytes) { if (fread(target, 1, bytes, stdin) != bytes) exit(3); }
int main(void) {
    int32_t numbers[4], grids[8];
    double scales[4];
    rfe_output outputs[4];
    rfe_letterbox *box = malloc(sizeof *box);
    float *described = malloc(sizeof(float) * RFE_MESH_INPUTS);
    double *points = malloc(sizeof(double) * 3 * RFE_MESH_VERTICES);
    get(numbers, sizeof numbers);  /* frame width and height, faces, type of the features */
    rfe_letterbox_init(box, numbers[0], numbers[1]);
    for (int i = 0; i < 4; i++) {
        void *data;
        get(grids, 8);
        get(scales, 8);
        data = malloc((size_t)grids[0]);
        get(data, (size_t)grids[0]);
        outputs[i].data = data;
        outputs[i].zero_point = grids[1];
        outputs[i].scale = scales[0];
        outputs[i].type = i < 3 ? (rfe_type)numbers[3] : RFE_FLOAT32;
    }
    for (int32_t i = 0; i < numbers[2]; i++) {
        rfe_face face;
        get(&face, sizeof face);
        rfe_mesh_describe(outputs, box, &face, described);
        rfe_mesh_place(&outputs[3], i, box, &face, points);
        fwrite(described, sizeof(float), RFE_MESH_INPUTS, stdout);
        fwrite(points, sizeof(double), 3 * RFE_MESH_VERTICES, stdout);
    }
    for (int i = 0; i < 4; i++) free((void *)(uintptr_t)outputs[i].data);
    free(box); free(described); free(points);
    return 0;
}
"""


@pytest.mark.skipif(not COMPILERS, reason="no gcc and no clang here")
@pytest.mark.parametrize("dtype", [np.float32, np.int8])
def test_c_describes_and_places_faces_as_numpy_does(tmp_path: Path, dtype: type) -> None:
    for name, content in c_files(SPEC).items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "driver.c").write_text(DRIVER)
    binary = tmp_path / "driver"
    sanitized = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    command = [COMPILERS[0], *STRICT, "-O1", *sanitized, str(tmp_path / "driver.c"), "-lm", "-o", str(binary)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    random = np.random.default_rng(3)
    faces, (features, quant_params) = random_faces(random, 3), random_features(random, dtype)
    placement = letterbox_for(SPEC, 301, 207)
    scale = np.array([placement.scale_x, placement.scale_y])
    framed = Faces(faces.scores, faces.boxes * np.tile(scale, 2), faces.landmarks * scale)
    vertices = random.normal(size=(1, 1, 3, 3 * 468)).astype(np.float32)
    stream = struct.pack("=4i", 301, 207, 3, 0 if dtype == np.float32 else 1)
    for array, quant in zip((*features, vertices), (*quant_params, QuantParams()), strict=True):
        stream += struct.pack("=2id", array.nbytes, quant.zero_point, quant.scale) + array.tobytes()
    rows = np.concatenate([framed.scores[:, None], framed.boxes, framed.landmarks.reshape(3, 10)], axis=1)
    result = subprocess.run([str(binary)], input=stream + rows.tobytes(), capture_output=True)
    assert result.returncode == 0, result.stderr.decode()
    inputs = SPEC.mesh.inputs if SPEC.mesh else 0
    described = describe(SPEC, features, quant_params, faces.boxes, faces.landmarks)
    placed = place(faces.boxes, vertices.reshape(3, 468, 3).astype(np.float64))
    placed *= (*scale, np.sqrt(scale.prod()))
    each = np.frombuffer(result.stdout, np.uint8).reshape(3, -1)
    got = each[:, : 4 * inputs].copy().view(np.float32)
    np.testing.assert_allclose(got, described, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        each[:, 4 * inputs :].copy().view(np.float64).reshape(3, 468, 3), placed, rtol=1e-9, atol=1e-6
    )


def test_a_bundle_without_a_dense_branch_has_no_header_of_it() -> None:
    assert MESH_HEADER not in c_files(Spec())
    assert MESH_HEADER in c_files(Spec(mesh=Mesh()))


class Recorded:
    """A network of a contract that gives zeros, scores below every threshold but one, and counts its runs."""

    def __init__(self, contract: Contract) -> None:
        self.runs = 0
        self.quant_params = (QuantParams(),) * len(contract.outputs)
        self._outputs = [np.zeros(output.shape, np.float32) for output in contract.outputs]
        for values, output in zip(self._outputs, contract.outputs, strict=True):
            if output.head == "score":
                values[:] = -9.0
                values[0, 1, 1, 0] = 3.0

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        self.runs += 1
        return self._outputs


def test_calls_without_meshes_run_the_small_network_after_a_call_with_them() -> None:
    assert SPEC.mesh is not None
    plain, featured, branch = Recorded(SPEC), Recorded(SPEC.with_features), Recorded(SPEC.mesh)
    with Detector(SPEC, plain, lambda: (featured, branch)) as detector:
        frame = np.zeros((64, 96, 3), np.uint8)
        for mesh, runs in ((False, (1, 0)), (True, (1, 1)), (False, (2, 1)), (True, (2, 2))):
            faces = detector.detect(frame, mesh=mesh)
            assert len(faces) > 0
            assert (faces.vertices is not None) == mesh
            assert (plain.runs, featured.runs) == runs
        assert [faces.vertices is None for faces in detector.detect_many([frame] * 3)] == [True] * 3
        assert (plain.runs, featured.runs) == (5, 2)
        assert [faces.vertices is None for faces in detector.detect_many([frame] * 2, mesh=True)] == [False] * 2
        assert (plain.runs, featured.runs) == (5, 4)
