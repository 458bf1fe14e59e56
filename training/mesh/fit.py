"""`train-mesh`: a dense branch for the frozen detector of a checkpoint, from photographs without labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retinaface_edge.export.models.mesh_branch import new_branch
from retinaface_edge.export.models.mesh_encoder import LEAST_DEVIATION
from retinaface_edge.export.models.mesh_graph import GraphBranch
from retinaface_edge.export.models.mesh_linear import LinearBranch
from retinaface_edge.runtime.mesh.branch import OFFSET_UNITS, head_pose
from retinaface_edge.runtime.spec import MESH_OFFSETS, Mesh

from .renderer import pixel_loss
from .samples import EXTENT, Pictured, Samples, splits

BATCH = 512
PEAK_RATE, WEIGHT_DECAY = 2e-3, 0.02
FEATURE_NOISE, OFFSET_NOISE = 0.25, 0.15
"""Of each number's own deviation: about what INT8 changes them by."""
BOX_NOISE = 0.01
"""Of the box size: how far boxes are moved, and the logarithm of their size changed."""
DEPTH_WEIGHT = 0.3
PIXEL_WEIGHT, PICTURED = 0.01, 2
"""The paper's weight, and of how many faces each step takes it: rendering is slow."""
COMPONENT_SAMPLES = 8000
YAW_BINS, SIZE_BINS = (0, 15, 30, 60, 180), (0, 64, 128, 256, 10_000)

Progress = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True, eq=False)
class Accuracy:
    """How far predicted vertices are from the teacher's, face by face, in per cent of √(box area).

    `flat` (n,) is the mean distance in the picture, `deep` (n,) that in space; `yaw` (n,) degrees, by the teacher's
    mesh, and `sizes` (n,) pixels of the detector's input.
    """

    flat: NDArray[np.float64]
    deep: NDArray[np.float64]
    yaw: NDArray[np.float64]
    sizes: NDArray[np.float64]

    def to_json(self) -> dict[str, Any]:
        """The means over all faces, and by yaw and size, with how many faces each is of."""
        rows = {"all": np.ones(len(self.flat), np.bool_), "yaw below 30": self.yaw < 30.0}
        for low, high in pairwise(YAW_BINS):
            rows[f"yaw {low} to {high}"] = (self.yaw >= low) & (self.yaw < high)
        for low, high in pairwise(SIZE_BINS):
            rows[f"size {low} to {high}"] = (self.sizes >= low) & (self.sizes < high)
        return {
            name: {
                "faces": int(which.sum()),
                "percent": round(float(self.flat[which].mean()), 3),
                "percent_3d": round(float(self.deep[which].mean()), 3),
            }
            for name, which in rows.items()
            if which.any()
        }


def train(
    samples: Samples,
    mesh: Mesh,
    epochs: int,
    seed: int,
    decoder: str = LinearBranch.kind,
    progress: Progress = iter,
    pictured: Pictured | None = None,
) -> LinearBranch | GraphBranch:
    """A branch that learnt `samples`; with the same samples, seed, threads and machine always the same.

    A linear decoder starts as the principal components of the vertices, a graph decoder at their mean. The loss is the
    mean distance of vertices in the picture and, with less weight, their difference in depth; with `pictured`, which
    only a graph decoder's colours can learn from, the paper's pixel loss is added.
    """
    torch.manual_seed(seed)
    branch = new_branch(decoder, mesh)
    described, wanted = torch.from_numpy(samples.described), torch.from_numpy(samples.vertices)
    branch.encoder.mean.copy_(torch.from_numpy(samples.described.mean(axis=0, dtype=np.float64)))
    deviation = torch.from_numpy(samples.described.std(axis=0, dtype=np.float64)).clamp_min(LEAST_DEVIATION)
    branch.encoder.deviation.copy_(deviation)
    if isinstance(branch, LinearBranch):
        _start_with_components(branch.decoder, wanted)
    else:
        branch.decoder.mean.data[:, :3] = torch.from_numpy(samples.vertices.mean(axis=0, dtype=np.float64))
    noise = torch.full((mesh.inputs,), FEATURE_NOISE)
    noise[-MESH_OFFSETS:] = OFFSET_NOISE
    noise *= branch.encoder.deviation
    branch.train()
    optimiser = torch.optim.AdamW(branch.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY)
    steps = max(epochs * (len(samples) // BATCH), 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, steps)
    random = np.random.default_rng(seed)
    for _ in progress(range(epochs)):
        for index in splits(samples, BATCH, random):
            rows = torch.from_numpy(index)
            given = described[rows].float()
            moved, target = move_boxes(given + torch.randn_like(given) * noise, wanted[rows].float())
            value = loss(branch(moved), target)
            if pictured is not None and isinstance(branch, GraphBranch):
                shown = random.choice(len(pictured.pictures), PICTURED, replace=False)
                value = value + PIXEL_WEIGHT * _pixels(branch, pictured, shown)
            optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return branch.eval()


def move_boxes(described: Tensor, wanted: Tensor, by: float = BOX_NOISE) -> tuple[Tensor, Tensor]:
    """Faces as if each box had been found elsewhere, by `by` of its size at random; face and landmarks stay.

    So the branch learns to look for the face where features and landmarks say, and not to believe the box alone.
    """
    shift, change = by * torch.randn(len(described), 1, 2), by * torch.randn(len(described), 1, 1)
    smaller = torch.exp(-change)
    landmarks = described[:, -MESH_OFFSETS:-2].reshape(len(described), -1, 2)
    landmarks = (landmarks - OFFSET_UNITS * shift) * smaller
    size = described[:, -2:-1] + change[:, :, 0] / math.log(2.0)
    moved = torch.cat([described[:, :-MESH_OFFSETS], landmarks.flatten(1), size, described[:, -1:]], dim=1)
    return moved, torch.cat([wanted[..., :2] - shift, wanted[..., 2:]], dim=2) * smaller


def _pixels(branch: GraphBranch, pictured: Pictured, rows: NDArray[np.intp]) -> Tensor:
    """The mean pixel loss of some faces, each rendered from its own code."""
    scenes = branch.scene(torch.from_numpy(pictured.described[rows]))
    pictures = torch.from_numpy(pictured.pictures[rows]).float() / 255.0
    losses = [
        pixel_loss(scene[:, :3] / EXTENT, scene[:, 3:], camera, illumination, picture)
        for scene, camera, illumination, picture in zip(*scenes, pictures, strict=True)
    ]
    return torch.stack(losses).mean()


def loss(vertices: Tensor, wanted: Tensor) -> Tensor:
    """Mean distance in the picture of `vertices` (n, 468, 3) to `wanted`, plus 0.3 of the mean difference in depth."""
    difference = vertices - wanted
    flat = difference[..., :2].square().sum(dim=2).add(1e-6).sqrt().mean()
    return flat + DEPTH_WEIGHT * difference[..., 2].abs().mean()


def accuracy(branch: nn.Module, samples: Samples) -> Accuracy:
    """The branch on samples that it has not seen."""
    with torch.inference_mode():
        predicted = branch(torch.from_numpy(samples.described)).numpy()
    return accuracy_of(predicted, samples)


def accuracy_of(predicted: NDArray[np.floating[Any]], samples: Samples) -> Accuracy:
    """Vertices (n, 468, 3) relative to the boxes of `samples`, against the teacher's."""
    difference = predicted.astype(np.float64) - samples.vertices
    return Accuracy(
        flat=100.0 * np.linalg.norm(difference[..., :2], axis=2).mean(axis=1),
        deep=100.0 * np.linalg.norm(difference, axis=2).mean(axis=1),
        yaw=np.array([abs(head_pose(vertices.astype(np.float64)).yaw) for vertices in samples.vertices]),
        sizes=samples.sizes.astype(np.float64),
    )


def accuracy_text(result: Mapping[str, Mapping[str, float]]) -> str:
    """`Accuracy.to_json` as a plain table."""
    lines = [f"{'faces of unseen photographs':28} {'faces':>6} {'error %':>8} {'in 3D %':>8}"]
    for name, row in result.items():
        lines.append(f"{name:28} {row['faces']:6d} {row['percent']:8.2f} {row['percent_3d']:8.2f}")
    return "\n".join(lines)


def _start_with_components(decoder: nn.Linear, vertices: Tensor) -> None:
    some = vertices[:: math.ceil(len(vertices) / COMPONENT_SAMPLES)].flatten(1).float()
    latent = min(decoder.in_features, *some.shape)
    _, deviation, components = torch.pca_lowrank(some, latent)
    with torch.no_grad():
        decoder.weight[:, :latent] = components * (deviation / math.sqrt(len(some)))
        decoder.bias.copy_(some.mean(dim=0))
