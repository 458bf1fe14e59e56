"""The paper's branch: Chebyshev convolutions against the spectrum, the renderer against a slow one, gradients."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from retinaface_edge.calibration.calibrate import calibrate
from retinaface_edge.calibration.dataset.image_set import ImageSet
from retinaface_edge.calibration.qdq import quantise
from retinaface_edge.calibration.recipe import read_recipe
from retinaface_edge.export.graph.export import to_onnx
from retinaface_edge.export.lower.openvino import lower_openvino
from retinaface_edge.export.lower.tflite import lower_tflite
from retinaface_edge.export.lower.tflite_schema import serialise
from retinaface_edge.export.models.mesh_branch import branch_file, deployed, read_branch
from retinaface_edge.export.models.mesh_graph import (
    LEVELS,
    ChebyshevConvolution,
    GraphBranch,
    Level,
    hierarchy,
    scaled_laplacian,
)
from retinaface_edge.runtime.backends import load
from retinaface_edge.runtime.mesh.topology import topology
from retinaface_edge.runtime.ops.postprocess import QuantParams
from retinaface_edge.runtime.spec import Mesh
from retinaface_edge.training.mesh.fit import train
from retinaface_edge.training.mesh.renderer import look, pixel_loss, rasterise, shade
from retinaface_edge.training.mesh.samples import Pictured, Samples

SIDE = 24
MESH = Mesh(channels=8, batch=4)


def face(side: int = SIDE) -> torch.Tensor:
    """The canonical face as the pictures have it, filling a picture of `side` pixels."""
    points = topology().canonical * (1.0, -1.0, -1.0)
    return torch.from_numpy(points * (side / 20.0) + (side / 2, side / 2, 0.0))


def test_the_convolution_filters_the_spectrum_by_the_chebyshev_polynomials() -> None:
    (level,) = hierarchy((30,))
    layer = ChebyshevConvolution(level, 5, 4, order=4).double()
    laplacian = scaled_laplacian(30, level.edges)
    layer.laplacian = torch.from_numpy(laplacian)
    x = np.random.default_rng(0).normal(size=(3, 30, 5))
    values, vectors = np.linalg.eigh(laplacian)
    assert values.min() >= -1.0 - 1e-9 and values.max() <= 1.0 + 1e-9
    expected = layer.bias.detach().numpy() + sum(
        # T_k(cos t) = cos(k·t), the definition, applied to the eigenvalues.
        (vectors * np.cos(k * np.arccos(np.clip(values, -1, 1)))) @ vectors.T @ x @ layer.weight[k].detach().numpy()
        for k in range(4)
    )
    np.testing.assert_allclose(layer(torch.from_numpy(x)).detach().numpy(), expected, atol=1e-5)


def test_gradients_of_the_convolution_are_those_of_its_differences() -> None:
    level = Level(np.arange(4), np.array([[0, 1], [1, 2], [2, 3]]), None)
    layer = ChebyshevConvolution(level, 2, 3).double()
    layer.laplacian = torch.from_numpy(scaled_laplacian(4, level.edges))
    x = torch.randn(2, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))


def test_levels_are_connected_and_interpolation_keeps_constants() -> None:
    levels = hierarchy()
    assert tuple(len(level.vertices) for level in levels) == LEVELS
    for coarse, fine in pairwise(levels):
        assert fine.rise is not None
        assert fine.rise.shape == (len(fine.vertices), len(coarse.vertices))
        np.testing.assert_allclose(fine.rise.sum(axis=1), 1.0)
        kept = np.isin(fine.vertices, coarse.vertices)
        assert np.all(fine.rise[kept].max(axis=1) == 1.0)
    for level in levels:
        reached = {0}
        for _ in range(len(level.vertices)):
            reached |= {int(b) for a, b in (*level.edges, *level.edges[:, ::-1]) if int(a) in reached}
            if len(reached) == len(level.vertices):
                break
        assert len(reached) == len(level.vertices)


def test_the_branch_gives_vertices_texture_camera_and_light() -> None:
    branch = GraphBranch(972)
    scene, camera, light = branch.scene(torch.zeros(2, 972))
    assert (scene.shape, camera.shape, light.shape) == ((2, 468, 6), (2, 7), (2, 9))
    assert branch(torch.zeros(2, 972)).shape == (2, 468, 3)


def random_branch() -> GraphBranch:
    torch.manual_seed(0)
    branch = GraphBranch(MESH.inputs).eval()
    with torch.no_grad():
        branch.decoder.mean.normal_(std=0.3)
        for convolution in branch.decoder.convolutions:
            convolution.bias.normal_(std=0.1)
    return branch


def test_the_decoder_interpolates_then_convolves() -> None:
    branch, levels = random_branch(), hierarchy()
    decoder, code = branch.decoder, torch.randn(3, 128)
    with torch.inference_mode():
        x = decoder.spread(code).reshape(3, LEVELS[0], -1)
        for level, convolution in zip(levels, decoder.convolutions, strict=True):
            if level.rise is not None:
                x = torch.from_numpy(level.rise).float() @ functional.leaky_relu(x, 0.1)
            x = convolution(x)  # by the recursion
        torch.testing.assert_close(decoder(code), x + decoder.mean, rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_graph_branch_is_compiled_for_every_backend(precision: str, tmp_path: Path) -> None:
    file = tmp_path / "mesh.safetensors"
    file.write_bytes(branch_file(random_branch(), MESH, {}, "graph"))
    branch = read_branch(file)
    model = to_onnx(deployed(branch.model).eval(), MESH)
    random = np.random.default_rng(0)
    described = random.normal(size=(6, *MESH.input_shape)).astype(np.float32)
    quant_params: dict[str, QuantParams] = {}
    if precision == "int8":
        recipe = replace(read_recipe("balanced"), float_layers=())
        calibration = calibrate(model, MESH, ImageSet(tuple(described), "", "faces", ()), recipe)
        model, quant_params = quantise(calibration, MESH), calibration.quant_params
    tflite = lower_tflite(model, quant_params)
    assert precision == "fp32" or tflite.float_operators == 0
    forms = {
        "onnxruntime": [model.SerializeToString()],
        "openvino": lower_openvino(model, MESH),
        "tflite": [serialise(tflite)],
    }
    with torch.inference_mode():
        expected = branch.model(torch.from_numpy(described.reshape(-1, MESH.inputs))).numpy()
    for backend, files in forms.items():
        network = load(backend, MESH, files, 1)
        raw = np.concatenate([network.run(batch)[0][0, 0].copy() for batch in described]).astype(np.float64)
        found = ((raw - network.quant_params[0].zero_point) * network.quant_params[0].scale).reshape(expected.shape)
        if precision == "fp32":
            np.testing.assert_allclose(found, expected, atol=1e-5)
        else:  # two steps of the grid of the vertices, on which most of them lie
            assert np.abs(found - expected).mean() < 2 * np.ptp(expected) / 255


def test_the_pixel_loss_teaches_colours_that_vertices_say_nothing_of() -> None:
    described = np.random.default_rng(0).normal(size=(600, MESH.inputs)).astype(np.float32)
    vertices = np.repeat(topology().canonical[np.newaxis] * (0.05, -0.05, -0.05), 600, axis=0).astype(np.float32)
    samples = Samples(described, vertices, np.full(600, 100, np.float32))
    redder = []
    for colour in ((230, 20, 20), (20, 20, 230)):
        pictures = np.broadcast_to(np.array(colour, np.uint8), (4, 12, 12, 3))
        branch = train(samples, MESH, 12, 0, "graph", pictured=Pictured(described[:4], pictures))
        assert isinstance(branch, GraphBranch)
        with torch.inference_mode():
            red, _, blue = branch.scene(torch.from_numpy(described[:4]))[0][..., 3:].mean(dim=(0, 1)).tolist()
        redder.append(red - blue)
    assert redder[0] > redder[1] + 0.04


def slow_render(vertices: np.ndarray, colours: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Each pixel looks at each triangle, by solving for its barycentric coordinates."""
    picture, shown = np.zeros((side, side, 3)), np.zeros((side, side), bool)
    triangles = topology().triangles
    corners = vertices[triangles]
    systems = np.concatenate([corners[:, :, :2].transpose(0, 2, 1), np.ones((len(triangles), 1, 3))], axis=1)
    usable = np.abs(np.linalg.det(systems)) > 1e-12
    inverse = np.zeros_like(systems)
    inverse[usable] = np.linalg.inv(systems[usable])
    for y in range(side):
        for x in range(side):
            weights = inverse @ np.array([x + 0.5, y + 0.5, 1.0])
            inside = usable & np.all(weights >= -1e-12, axis=1)
            if inside.any():
                depth = np.where(inside, (weights * corners[:, :, 2]).sum(axis=1), np.inf)
                nearest = int(depth.argmin())
                shown[y, x] = True
                picture[y, x] = weights[nearest] @ colours[triangles[nearest]]
    return picture, shown


@pytest.mark.parametrize("turn", [0.0, 0.9])
def test_the_rasteriser_gives_what_a_slow_renderer_gives(turn: float) -> None:
    camera = torch.tensor([0.0, 0.0, 0.0, 0.1, turn, 0.2, 0.0], dtype=torch.float64)
    vertices = look(face() - SIDE / 2, camera) + SIDE / 2
    colours = torch.from_numpy(np.random.default_rng(1).random((468, 3)))
    picture, shown = rasterise(vertices, colours, SIDE)
    expected, expected_shown = slow_render(vertices.numpy(), colours.numpy(), SIDE)
    np.testing.assert_array_equal(shown.numpy(), expected_shown)
    assert shown.sum() > 100
    np.testing.assert_allclose(picture.numpy(), expected, atol=1e-5)


def test_gradients_of_the_renderer_are_those_of_its_differences() -> None:
    random = np.random.default_rng(2)
    camera = torch.tensor([0.01, -0.02, 0.0, 0.1, 0.3, -0.1, 0.05], dtype=torch.float64, requires_grad=True)
    light = torch.tensor([0.3, -0.5, -3.0, 0.5, 0.6, 0.4, 0.4, 0.3, 0.5], dtype=torch.float64, requires_grad=True)
    vertices = (face(1) - 0.5).clone().requires_grad_()
    colours = torch.from_numpy(random.random((468, 3))).requires_grad_()
    picture = torch.from_numpy(random.random((12, 12, 3)) + 2.0)  # brighter than the face: no corner in the distance

    def loss() -> torch.Tensor:
        return pixel_loss(vertices, colours, camera, light, picture)

    loss().backward()
    step = 1e-7
    for tensor in (camera, light, vertices, colours):
        assert tensor.grad is not None
        flat, gradient = tensor.detach().reshape(-1), tensor.grad.reshape(-1)
        for index in random.choice(len(flat), min(len(flat), 9), replace=False):
            before = float(flat[index])
            values = []
            for sign in (1.0, -1.0):
                flat[index] = before + sign * step
                values.append(float(loss().detach()))
            flat[index] = before
            assert (values[0] - values[1]) / (2 * step) == pytest.approx(float(gradient[index]), abs=1e-5)


def test_a_lamp_before_the_face_lights_it_and_one_behind_does_not() -> None:
    vertices, colours = face(1) - 0.5, torch.ones(468, 3, dtype=torch.float64)
    lit, dark = (
        shade(vertices, colours, torch.tensor([0.0, 0.0, z, 1, 1, 1, 0.1, 0.1, 0.1], dtype=torch.float64))
        for z in (-9.0, 9.0)
    )
    assert float(lit[1].mean()) > 0.9  # the tip of the nose faces the viewer
    assert float(dark[1].mean()) == pytest.approx(0.1)
