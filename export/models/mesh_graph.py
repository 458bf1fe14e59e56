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

from retinaface_edge.runtime.mesh.topology import topology

from .layers import Activation, activate
from .mesh_encoder import Encoder, encoder_convolutions

LEVELS = (30, 117, 468)
"""Vertices, coarsest first."""
CHANNELS = (48, 32, 16)
ORDER = 3
LATENT = 128
SHAPE_AND_TEXTURE = 6
GREY = 0.5
LIGHT = (0.0, 0.0, -4.0, 0.3, 0.3, 0.3, 0.7, 0.7, 0.7)
"""Where training begins: a grey face under a white light before it, and most of the light from everywhere."""


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


def chebyshev(laplacian: Tensor, order: int) -> Tensor:
    """T_0 … T_(order−1) of L̃ (v, v): (order, v, v). T_k = 2·L̃·T_(k−1) − T_(k−2), T_0 = 1, T_1 = L̃."""
    terms = [torch.eye(len(laplacian), dtype=laplacian.dtype), laplacian]
    while len(terms) < order:
        terms.append(2.0 * laplacian @ terms[-1] - terms[-2])
    return torch.stack(terms[:order])


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
        self.mean.data[:, 3:] = GREY
        for index, level in enumerate(levels[1:]):
            assert level.rise is not None
            laplacian = torch.from_numpy(scaled_laplacian(len(level.vertices), level.edges))
            terms = chebyshev(laplacian, ORDER) @ torch.from_numpy(level.rise)
            self.register_buffer(f"filter{index}", torch.cat(list(terms), dim=1).float(), persistent=False)

    def forward(self, code: Tensor) -> Tensor:
        first, *finer = (_chebyshev_of(convolution) for convolution in self.convolutions)
        x = first(self.spread(code).reshape(len(code), LEVELS[0], -1))
        for index, convolution in enumerate(finer):
            # Interpolation and recursion at once: T_k(L̃)·rise are constants, and read what W_k has mixed already.
            mixed = torch.einsum("nvi,kio->kvno", activate(x, Activation.LEAKY_RELU), convolution.weight)
            filtered = self.get_buffer(f"filter{index}") @ mixed.flatten(0, 1).flatten(1)
            x = filtered.reshape(len(filtered), len(code), -1).transpose(0, 1) + convolution.bias
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
        self.illumination.bias.data = torch.tensor(LIGHT)
        self.decoder = GraphDecoder()

    def forward(self, described: Tensor) -> Tensor:
        """Vertices (n, 468, 3) relative to the box, of descriptions (n, inputs)."""
        vertices: Tensor = self.decoder(self.encoder(described))[..., :3]
        return vertices

    def scene(self, described: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All that rendering needs: vertices with colour (n, 468, 6), camera (n, 7), illumination (n, 9)."""
        code = self.encoder(described)
        return self.decoder(code), self.camera(code), self.illumination(code)


class DeployGraphBranch(nn.Module):
    """A graph branch under the bundle's contract: `feature` (1, 1, n, inputs) in, `vertices` (1, 1, n, 1404) out.

    Every step is a 1×1 convolution, over channels or, with the axes of vertices and channels exchanged, over vertices.
    What is linear between two activations is folded: spreading and the coarsest graph's convolution into one map of the
    code; a convolution's recursion, and the interpolation before it, into the constant matrices T_k(L̃)·rise, which read
    what W_k has mixed. Colours, camera and illumination are left out: only the pixel loss needs them.
    """

    def __init__(self, branch: GraphBranch) -> None:
        super().__init__()
        decoder = branch.decoder
        first, *finer = decoder.convolutions
        self.encoder = encoder_convolutions(branch.encoder)
        self.coarsest = _coarsest(decoder.spread, _chebyshev_of(first))
        self.stages = nn.ModuleList(
            _Stage(_chebyshev_of(convolution), decoder.get_buffer(f"filter{index}"), keep)
            for index, (convolution, keep) in enumerate(zip(finer, (*CHANNELS[2:], 3), strict=True))
        )
        self.mean = nn.Conv2d(3 * LEVELS[-1], 3 * LEVELS[-1], 1, groups=3 * LEVELS[-1])
        assert self.mean.bias is not None
        self.mean.weight.data.fill_(1.0)
        self.mean.bias.data = decoder.mean.detach()[:, :3].reshape(-1).clone()
        self.requires_grad_(False)

    def forward(self, feature: Tensor) -> tuple[Tensor, ...]:
        x = feature.permute(0, 3, 1, 2)
        for layer in self.encoder:
            x = activate(layer(x), Activation.LEAKY_RELU)
        x = activate(self.coarsest(x), Activation.LEAKY_RELU).permute(0, 2, 3, 1)
        x = x.reshape(1, x.shape[2], LEVELS[0], CHANNELS[1]).permute(0, 3, 1, 2)
        for index, stage in enumerate(self.stages):
            x = stage(x)  # (1, vertices, n, channels)
            if index + 1 < len(self.stages):
                x = activate(x, Activation.LEAKY_RELU)
            x = x.permute(0, 3, 2, 1)
        x = x.permute(0, 2, 3, 1).reshape(1, 1, x.shape[2], -1)
        return (self.mean(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1),)


class _Stage(nn.Module):
    """Interpolation and a Chebyshev convolution: (1, channels, n, coarse vertices) to (1, vertices, n, channels)."""

    def __init__(self, convolution: ChebyshevConvolution, matrix: Tensor, keep: int) -> None:
        super().__init__()
        order, inputs, _ = convolution.weight.shape
        mixes = [nn.Conv2d(inputs, keep, 1) for _ in range(order)]
        for index, mix in enumerate(mixes):
            assert mix.bias is not None
            mix.weight.data = convolution.weight.detach()[index, :, :keep].T[:, :, None, None].clone()
            # T_0·rise keeps constants, as its rows add to 1: the bias may come before it.
            mix.bias.data = convolution.bias.detach()[:keep] * float(index == 0)
        self.mixes = nn.ModuleList(mixes)
        self.filter = nn.Conv2d(matrix.shape[1], matrix.shape[0], 1)
        assert self.filter.bias is not None
        self.filter.weight.data = matrix[:, :, None, None].clone()
        self.filter.bias.data.zero_()

    def forward(self, x: Tensor) -> Tensor:
        mixed = [mix(x).permute(0, 3, 2, 1) for mix in self.mixes]
        filtered: Tensor = self.filter(torch.cat(mixed, dim=1))
        return filtered


def _coarsest(spread: nn.Linear, convolution: ChebyshevConvolution) -> nn.Conv2d:
    """Spreading, then the convolution of the coarsest graph, as one 1×1 convolution of the code."""
    order, inputs, outputs = convolution.weight.shape
    vertices = len(convolution.laplacian)
    terms = chebyshev(convolution.laplacian.double(), order)
    matrix = torch.einsum("kvu,kio->voui", terms, convolution.weight.detach().double())
    matrix = matrix.reshape(vertices * outputs, vertices * inputs)
    conv = nn.Conv2d(spread.in_features, vertices * outputs, 1)
    assert conv.bias is not None
    conv.weight.data = (matrix @ spread.weight.detach().double()).float()[:, :, None, None]
    bias = matrix @ spread.bias.detach().double() + convolution.bias.detach().double().repeat(vertices)
    conv.bias.data = bias.float()
    return conv


def _chebyshev_of(layer: nn.Module) -> ChebyshevConvolution:
    assert isinstance(layer, ChebyshevConvolution)
    return layer


def _rise(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights of the three nearest coarse vertices, by inverse distance; a vertex that stays is itself."""
    weights = np.zeros_like(distance)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :3]
    rows = np.arange(len(distance))[:, np.newaxis]
    near = distance[rows, nearest]
    share = np.where(near[:, :1] == 0.0, near == 0.0, 1.0 / np.maximum(near, 1e-9))
    weights[rows, nearest] = share / share.sum(axis=1, keepdims=True)
    return weights
