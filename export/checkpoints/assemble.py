"""From tensors under a family's names to our model, strictly: every tensor with its shape, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.retinaface import Architecture, RetinaFace
from .checkpoint import MAX_BYTES, CheckpointError, some

NORM = ("weight", "bias", "running_mean", "running_var")
NORM_EPSILON = 1e-5
MOST_CHANNELS = 1 << 13


@dataclass(frozen=True)
class Layer:
    """One convolution: its module in our model, where a family keeps its weight, and its batch norm if it has one.

    `ours` is the module that holds the convolution: a `ConvNorm` if `norm` is given, else one with weight and bias.
    """

    ours: str
    conv: str
    norm: str | None


@dataclass(frozen=True)
class Recognised:
    """A family, the shapes that a state dict's keys and sizes tell, and where the family keeps each layer."""

    family: str
    architecture: Architecture
    layers: tuple[Layer, ...]


def assemble(state: Mapping[str, Tensor], recognised: Recognised, name: str) -> RetinaFace:
    """The model in evaluation mode. `name` is for messages.

    Raises `CheckpointError` as `check_shapes` does, and when a value is not finite.
    """
    check_shapes(state, recognised, name)
    state = _with_norms(state, recognised.layers)
    with torch.device("meta"):
        model = RetinaFace(recognised.architecture)
    theirs = {ours: key for key, ours in names(recognised.layers)}
    if bad := [key for key in theirs.values() if not torch.isfinite(state[key]).all()]:
        raise CheckpointError(f"{name} has values that are not finite in: {some(bad)}")
    values = {
        key: torch.zeros((), dtype=torch.long) if _is_counter(key) else _owned(state[theirs[key]])
        for key in model.state_dict()
    }
    model.load_state_dict(values, assign=True)
    return model.requires_grad_(True).eval()


def check_shapes(state: Mapping[str, Tensor], recognised: Recognised, name: str) -> None:
    """Compare keys and shapes before any memory is taken: a tensor that only claims to be large costs nothing.

    Raises `CheckpointError` when a tensor is missing, unexpected, or of another shape.
    """
    family, state = recognised.family, _with_norms(state, recognised.layers)
    with torch.device("meta"):
        model = RetinaFace(recognised.architecture)
    expected = {key: value for key, value in model.state_dict().items() if not _is_counter(key)}
    if sum(value.numel() for value in expected.values()) * 4 > MAX_BYTES:
        raise CheckpointError(f"{name} has more weights than any RetinaFace; its shapes are damaged")
    theirs = {ours: key for key, ours in names(recognised.layers)}
    missing = [theirs[key] for key in expected if theirs[key] not in state]
    known = set(theirs.values())
    extra = [key for key in state if key not in known and not _is_counter(key)]
    if missing or extra:
        raise CheckpointError(f"{name} is not a {family} RetinaFace: {_listed(missing, extra)}")
    wrong = [
        f"{theirs[key]} {tuple(state[theirs[key]].shape)} instead of {tuple(value.shape)}"
        for key, value in expected.items()
        if state[theirs[key]].shape != value.shape
    ]
    if wrong:
        raise CheckpointError(f"{name} has tensors of other shapes than a {family} RetinaFace: {some(wrong)}")


def names(layers: Iterable[Layer]) -> Iterator[tuple[str, str]]:
    """(their key, our key) of every tensor."""
    for layer in layers:
        if layer.norm is None:
            yield f"{layer.conv}.weight", f"{layer.ours}.weight"
            yield f"{layer.conv}.bias", f"{layer.ours}.bias"
        else:
            yield f"{layer.conv}.weight", f"{layer.ours}.conv.weight"
            yield from ((f"{layer.norm}.{part}", f"{layer.ours}.norm.{part}") for part in NORM)


def _with_norms(state: Mapping[str, Tensor], layers: Iterable[Layer]) -> dict[str, Tensor]:
    """Where batch norm was folded into a convolution: a norm that changes nothing but adds the convolution's bias."""
    result = dict(state)
    for layer in layers:
        bias = state.get(f"{layer.conv}.bias")
        if layer.norm is None or bias is None or f"{layer.norm}.weight" in state:
            continue
        if bias.ndim != 1 or len(bias) > MOST_CHANNELS:  # nothing is made of a tensor that only claims to be large
            continue
        bias = result.pop(f"{layer.conv}.bias").float()
        ones = torch.ones_like(bias)
        parts = (ones * math.sqrt(1.0 + NORM_EPSILON), bias, torch.zeros_like(bias), ones)
        result.update(zip((f"{layer.norm}.{part}" for part in NORM), parts, strict=True))
    return result


def _is_counter(key: str) -> bool:
    """Whether it counts batches of training."""
    return key.endswith("num_batches_tracked")


def _listed(missing: list[str], extra: list[str]) -> str:
    parts = ([f"missing {some(missing)}"] if missing else []) + ([f"unexpected {some(extra)}"] if extra else [])
    return "; ".join(parts)


def _owned(value: Tensor) -> Tensor:
    """Float32 of its own memory: loading assigns it to the model."""
    return value.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)
