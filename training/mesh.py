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
from torch.nn import functional

from ..export.branch import LEAST_DEVIATION, LinearBranch
from ..export.graph_decoder import GraphBranch
from ..runtime.mesh import head_pose
from ..runtime.spec import Mesh
from .samples import Samples, splits

BATCH = 512
PEAK_RATE, WEIGHT_DECAY, DROPOUT = 4e-3, 0.02, 0.1
DEPTH_WEIGHT = 0.3
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
    device: str = "cpu",
) -> LinearBranch | GraphBranch:
    """A branch that learnt `samples`; with the same samples, seed, threads and machine always the same.

    A linear decoder starts as the principal components of the vertices, a graph decoder at their mean. The loss is the
    mean distance of vertices in the picture and, with less weight, their difference in depth.
    """
    torch.manual_seed(seed)
    branch = GraphBranch(mesh.inputs) if decoder == GraphBranch.kind else LinearBranch(mesh.inputs, mesh.vertices)
    described, wanted = torch.from_numpy(samples.described), torch.from_numpy(samples.vertices)
    branch.encoder.mean.copy_(described.mean(dim=0))
    branch.encoder.deviation.copy_(described.std(dim=0).clamp_min(LEAST_DEVIATION))
    if isinstance(branch, LinearBranch):
        _start_with_components(branch.decoder, wanted.flatten(1))
    else:
        branch.decoder.mean.data[:, :3] = wanted.mean(dim=0)
    branch.to(device).train()
    optimiser = torch.optim.AdamW(branch.parameters(), lr=PEAK_RATE, weight_decay=WEIGHT_DECAY)
    steps = max(epochs * (len(samples) // BATCH), 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, steps)
    random = np.random.default_rng(seed)
    for _ in progress(range(epochs)):
        for index in splits(samples, BATCH, random):
            rows = torch.from_numpy(index)
            # Dropout on what describes the face, about its mean: no single feature may be relied upon.
            given = described[rows].to(device)
            kept = functional.dropout(given - branch.encoder.mean, DROPOUT) + branch.encoder.mean
            value = loss(branch(kept), wanted[rows].to(device))
            optimiser.zero_grad()
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return branch.cpu().eval()


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


def _start_with_components(decoder: nn.Linear, flat: Tensor) -> None:
    step = math.ceil(len(flat) / COMPONENT_SAMPLES)
    some = flat[::step]
    latent = min(decoder.in_features, *some.shape)
    _, deviation, components = torch.pca_lowrank(some, latent)
    with torch.no_grad():
        decoder.weight[:, :latent] = components * (deviation / math.sqrt(len(some)))
        decoder.bias.copy_(flat.mean(dim=0))
