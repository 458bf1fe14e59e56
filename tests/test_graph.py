"""The paper's branch: Chebyshev convolutions against the spectrum, the renderer against a slow one, gradients."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from retinaface_edge.export.graph_decoder import (
    LEVELS,
    ChebyshevConvolution,
    GraphBranch,
    Level,
    hierarchy,
    scaled_laplacian,
)
from retinaface_edge.runtime.topology import topology
from retinaface_edge.training.render import look, pixel_loss, rasterise, shade

SIDE = 24


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
