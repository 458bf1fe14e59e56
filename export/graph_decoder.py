"""The paper's mesh decoder: fast spectral graph convolutions with up-sampling, for joint shape and texture.

RetinaFace (arXiv 1905.00641, section 3.2) after Dense 3D Face Decoding (Zhou et al., CVPR 2019): a convolution filters
the signal on a graph by a polynomial of its Laplacian in Chebyshev form (Defferrard et al., arXiv 1606.09375, equations
4 and 5); from level to level, vertices are interpolated from three coarser ones (CoMA, arXiv 1807.10267, section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..runtime.topology import topology
from .branch import Encoder
from .model import activate

LEVELS = (30, 117, 468)
"""Vertices, coarsest first."""
CHANNELS = (48, 32, 16)
ORDER = 3
LATENT = 128
SHAPE_AND_TEXTURE = 6
SLOPE = 0.1


@dataclass(frozen=True, eq=False)
class Level:
    """One graph: which of the 468 vertices it has, its edges as rows of two, and how it is made from the coarser one.

    `rise` (vertices, coarser vertices) float64 has three weights a row that add to 1; the coarsest level has none.
    """

    vertices: NDArray[np.intp]
    edges: NDArray[np.intp]
    rise: NDArray[np.float64] | None


def hierarchy(sizes: tuple[int, ...] = LEVELS) -> tuple[Level, ...]:
    """The face at `sizes` vertices, coarsest first; the last has all.

    Vertices are chosen farthest first, so that any first n are spread evenly. Two are joined on a coarse level where
    the sets of fine vertices nearest to them touch.
    """
    points, fine = topology().canonical, topology().edges
    distance = np.linalg.norm(points[:, np.newaxis] - points, axis=2)
    order = [1]  # the tip of the nose
    while len(order) < len(points):
        order.append(int(distance[order].min(axis=0).argmax()))
    levels: list[Level] = []
    for size in sizes:
        chosen = np.arange(len(points)) if size == len(points) else np.sort(order[:size])
        nearest = distance[:, chosen].argmin(axis=1)
        joined = np.unique(np.sort(nearest[fine], axis=1), axis=0)
        rise = _rise(distance[np.ix_(chosen, levels[-1].vertices)]) if levels else None
        levels.append(Level(chosen, joined[joined[:, 0] != joined[:, 1]], rise))
    return tuple(levels)


def scaled_laplacian(vertices: int, edges: NDArray[np.intp]) -> NDArray[np.float64]:
    """L̃ = 2·L/λ − 1 (vertices, vertices), L = 1 − D^(−½)·A·D^(−½), λ its largest eigenvalue."""
    adjacency = np.zeros((vertices, vertices))
    adjacency[edges[:, 0], edges[:, 1]] = adjacency[edges[:, 1], edges[:, 0]] = 1.0
    root = 1.0 / np.sqrt(np.maximum(adjacency.sum(axis=1), 1.0))
    laplacian = np.eye(vertices) - root[:, np.newaxis] * adjacency * root
    return np.asarray(2.0 * laplacian / np.linalg.eigvalsh(laplacian)[-1] - np.eye(vertices))


class ChebyshevConvolution(nn.Module):
    """y = Σ_k T_k(L̃)·x·W_k + b, with T_k = 2·L̃·T_(k−1) − T_(k−2), T_0 = 1, T_1 = L̃.

    Signals are (n, vertices, channels).
    """

    laplacian: Tensor

    def __init__(self, level: Level, inputs: int, outputs: int, order: int = ORDER) -> None:
        super().__init__()
        self.register_buffer(
            "laplacian", torch.from_numpy(scaled_laplacian(len(level.vertices), level.edges)).float(), persistent=False
        )
        self.weight = nn.Parameter(torch.randn(order, inputs, outputs) / (order * inputs) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        before, current = x, self.laplacian @ x
        result = x @ self.weight[0]
        for weight in self.weight[1:]:
            result = result + current @ weight
            before, current = current, 2.0 * self.laplacian @ current - before
        biased: Tensor = result + self.bias
        return biased


class GraphDecoder(nn.Module):
    """Latent code (n, 128) to vertices with colour (n, 468, 6): x, y, z relative to the box, then red, green, blue."""

    def __init__(self) -> None:
        super().__init__()
        levels = hierarchy()
        self.spread = nn.Linear(LATENT, len(levels[0].vertices) * CHANNELS[0])
        widths = (*CHANNELS[1:], SHAPE_AND_TEXTURE)
        self.convolutions = nn.ModuleList(
            ChebyshevConvolution(level, a, b) for level, a, b in zip(levels, CHANNELS, widths, strict=True)
        )
        self.mean = nn.Parameter(torch.zeros(LEVELS[-1], SHAPE_AND_TEXTURE))
        for index, level in enumerate(levels[1:]):
            assert level.rise is not None
            self.register_buffer(f"rise{index}", torch.from_numpy(level.rise).float(), persistent=False)

    def forward(self, code: Tensor) -> Tensor:
        x = self.spread(code).reshape(len(code), LEVELS[0], -1)
        for index, convolution in enumerate(self.convolutions):
            x = convolution(x)
            if index + 1 < len(self.convolutions):
                x = self.get_buffer(f"rise{index}") @ activate(x, SLOPE)
        shaped: Tensor = x + self.mean
        return shaped


class GraphBranch(nn.Module):
    """The paper's branch: codes for shape and texture (128), camera (7) and illumination (9), and the graph decoder."""

    kind = "graph"

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.encoder = Encoder(inputs, LATENT)
        self.camera = nn.Linear(LATENT, 7)
        self.illumination = nn.Linear(LATENT, 9)
        self.decoder = GraphDecoder()

    def forward(self, described: Tensor) -> Tensor:
        """Vertices (n, 468, 3) relative to the box, of descriptions (n, inputs)."""
        vertices: Tensor = self.decoder(self.encoder(described))[..., :3]
        return vertices

    def scene(self, described: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All that rendering needs: vertices with colour (n, 468, 6), camera (n, 7), illumination (n, 9)."""
        code = self.encoder(described)
        return self.decoder(code), self.camera(code), self.illumination(code)


def _rise(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of the three nearest coarse vertices, by inverse distance; a vertex that stays is itself."""
    weights = np.zeros_like(distance)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :3]
    rows = np.arange(len(distance))[:, np.newaxis]
    near = distance[rows, nearest]
    share = np.where(near[:, :1] == 0.0, near == 0.0, 1.0 / np.maximum(near, 1e-9))
    weights[rows, nearest] = share / share.sum(axis=1, keepdims=True)
    return weights
