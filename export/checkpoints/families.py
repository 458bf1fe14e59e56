"""Checkpoint readers: each family of published RetinaFace checkpoints, into our training form.

A family is recognised by its keys and read strictly: every tensor of the model must be there with its shape, and
nothing else. Pickles are read with `weights_only`, so no code in them runs.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models.retinaface import STAGES, RetinaFace
from .source import MAX_BYTES, CheckpointError, checkpoint_file

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

__all__ = ["Checkpoint", "CheckpointError", "read_checkpoint", "read_onnx", "read_pickle"]

NORM = ("weight", "bias", "running_mean", "running_var")
NORM_EPSILON = 1e-5
NAMES_SHOWN = 8


@dataclass(frozen=True)
class Layer:
    """One convolution: its module in our model, where a family keeps its weight, and its batch norm if it has one."""

    ours: str
    conv: str
    norm: str | None


@dataclass(frozen=True)
class Checkpoint:
    """A model read from a checkpoint, the family it was recognised as, and the SHA-256 of the checkpoint's bytes."""

    model: RetinaFace
    family: str
    digest: str

    def read(self) -> Checkpoint:
        """A model in memory is its own `CheckpointSource`."""
        return self


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a `.pth` or `.onnx` file. Raises `CheckpointError` when it is neither, or not a RetinaFace."""
    return checkpoint_file(path).read()


def read_pickle(content: bytes, name: str) -> Checkpoint:
    """Read what `torch.save` wrote, running no code in it. `name` is for messages. Raises `CheckpointError`."""
    return Checkpoint(*_build(_state_dict(content, name), name), hashlib.sha256(content).hexdigest())


def read_onnx(content: bytes, name: str) -> Checkpoint:
    """Read a serialised ONNX export of one of the families, batch norm folded or not. `name` is for messages."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_from_string(content)
    except (DecodeError, ValueError) as error:
        raise CheckpointError(f"{name} is not an ONNX model; give a RetinaFace checkpoint (.pth or .onnx)") from error
    if not model.graph.node:
        raise CheckpointError(f"{name} is not an ONNX model; give a RetinaFace checkpoint (.pth or .onnx)")
    state = {}
    try:
        for key, parts in _onnx_layers(model, name).items():
            state.update({f"{key}.{part}": torch.from_numpy(value.copy()) for part, value in parts.items()})
    except (LookupError, TypeError, ValueError) as error:  # names that are no text, nodes without inputs, odd types
        raise CheckpointError(f"{name} is a malformed ONNX model ({error!r}); export it again") from error
    return Checkpoint(*_build(state, name), hashlib.sha256(content).hexdigest())


def _state_dict(content: bytes, name: str) -> dict[str, Tensor]:
    try:
        _check_archive(content, name)
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # PyTorch's reader of hostile pickles trips over them in every way there is
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{name} cannot be read as a PyTorch checkpoint of plain tensors ({reason[:120]}); "
            "save it again with torch.save(model.state_dict(), path)"
        ) from error
    for wrapper in ("state_dict", "model", "model_state_dict"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    if not isinstance(loaded, Mapping) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError(
            f"{name} holds no state dict of tensors; save it with torch.save(model.state_dict(), path)"
        )
    return {str(key).removeprefix("module."): value for key, value in loaded.items()}


def _check_archive(content: bytes, name: str) -> None:
    """Refuse an archive that would unpack to more than any RetinaFace has. It is read in memory and never unpacked."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        unpacked = sum(entry.file_size for entry in zipfile.ZipFile(io.BytesIO(content)).infolist())
        if unpacked > MAX_BYTES:
            raise CheckpointError(f"{name} would unpack to {unpacked:,} bytes; give a RetinaFace checkpoint")


def _build(state: Mapping[str, Tensor], name: str) -> tuple[RetinaFace, str]:
    family, layers = _recognise(state, name)
    sizes = [_first_dimension(state, layers, ours, name) for ours in ("backbone.stem", "pyramid.lateral.0")]
    if sizes[1] < 4 or sizes[1] % 4:
        raise CheckpointError(f"{name} has a pyramid of {sizes[1]} channels; the context modules need a multiple of 4")
    model = RetinaFace(width=sizes[0] / 32, channels=sizes[1])
    mapped = _mapped(state, layers)
    expected = model.state_dict()
    counters = {key for key in expected if key.endswith("num_batches_tracked")}
    theirs = {ours: key for key, ours in _names(layers)}
    missing = [theirs.get(key, key) for key in expected if key not in mapped and key not in counters]
    known = {key for key, _ in _names(layers)}
    extra = [key for key in state if key not in known and not key.endswith("num_batches_tracked")]
    if missing or extra:
        raise CheckpointError(f"{name} is not a {family} RetinaFace: {_listed('missing', missing, extra)}")
    wrong = [
        f"{theirs[key]} {tuple(mapped[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in mapped
        if mapped[key].shape != expected[key].shape
    ]
    if wrong:
        raise CheckpointError(f"{name} has tensors of other shapes than a {family} RetinaFace: {_some(wrong)}")
    if bad := [theirs[key] for key, value in mapped.items() if not torch.isfinite(value).all()]:
        raise CheckpointError(f"{name} has values that are not finite in: {_some(bad)}")
    model.load_state_dict({key: mapped.get(key, value) for key, value in expected.items()})
    return model.eval(), family


def _recognise(state: Mapping[str, Tensor], name: str) -> tuple[str, list[Layer]]:
    for family, (mark, layers) in FAMILIES.items():
        if any(key.startswith(mark) for key in state):
            return family, list(layers())
    raise CheckpointError(
        f"{name} is not a RetinaFace of a known family ({', '.join(FAMILIES)}); it holds: {_some(list(state))}"
    )


def _first_dimension(state: Mapping[str, Tensor], layers: Iterable[Layer], ours: str, name: str) -> int:
    key = next(layer.conv for layer in layers if layer.ours == ours) + ".weight"
    if key not in state or state[key].ndim != 4:
        raise CheckpointError(f"{name} has no convolution weight {key}, so it is not a whole RetinaFace checkpoint")
    return int(state[key].shape[0])


def _names(layers: Iterable[Layer]) -> Iterator[tuple[str, str]]:
    """(their key, our key) for every tensor; a folded layer's bias stands for its batch norm."""
    for layer in layers:
        if layer.norm is None:
            yield f"{layer.conv}.weight", f"{layer.ours}.weight"
            yield f"{layer.conv}.bias", f"{layer.ours}.bias"
        else:
            yield f"{layer.conv}.weight", f"{layer.ours}.conv.weight"
            yield f"{layer.conv}.bias", f"{layer.ours}.norm.bias"
            yield from ((f"{layer.norm}.{part}", f"{layer.ours}.norm.{part}") for part in NORM)


def _mapped(state: Mapping[str, Tensor], layers: Iterable[Layer]) -> dict[str, Tensor]:
    mapped = {ours: state[theirs].float() for theirs, ours in _names(layers) if theirs in state}
    for layer in layers:
        bias = state.get(f"{layer.conv}.bias")
        if layer.norm is not None and bias is not None and f"{layer.norm}.weight" not in state:
            # Batch norm was folded into this convolution: a norm that changes nothing but adds the bias.
            ones = torch.ones_like(bias)
            mapped[f"{layer.ours}.norm.weight"] = ones * math.sqrt(1.0 + NORM_EPSILON)
            mapped[f"{layer.ours}.norm.running_mean"] = torch.zeros_like(bias)
            mapped[f"{layer.ours}.norm.running_var"] = ones
    return mapped


def _listed(word: str, missing: list[str], extra: list[str]) -> str:
    parts = ([f"{word} {_some(missing)}"] if missing else []) + ([f"unexpected {_some(extra)}"] if extra else [])
    return "; ".join(parts)


def _some(names: list[str]) -> str:
    more = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _onnx_layers(model: ModelProto, name: str) -> dict[str, dict[str, NDArray[np.float32]]]:
    """Weights of every convolution and batch norm, under the module names that PyTorch's exporter leaves in nodes."""
    tensors = {tensor.name: _array(tensor, name) for tensor in model.graph.initializer}
    for node in model.graph.node:  # the exporter repeats a tensor used twice by an Identity
        if node.op_type == "Identity" and node.input[0] in tensors:
            tensors[node.output[0]] = tensors[node.input[0]]
    parts = {"Conv": ("weight", "bias"), "BatchNormalization": NORM}
    layers: dict[str, dict[str, NDArray[np.float32]]] = {}
    for node in model.graph.node:
        if node.op_type not in parts:
            continue
        values = [tensors.get(key) for key in node.input[1:]]
        if any(value is None for value in values):
            raise CheckpointError(
                f"{name} has a {node.op_type} whose weights are not stored in the file: {node.name!r}"
            )
        layer = {part: value for part, value in zip(parts[node.op_type], values, strict=False) if value is not None}
        key = _module_name(node.name)
        known = layers.setdefault(key, layer)
        if any(not np.array_equal(known[part], value) for part, value in layer.items()):
            raise CheckpointError(f"{name} has two layers named {key} with different weights")
    return layers


def _array(tensor: TensorProto, name: str) -> NDArray[np.float32]:
    """The values of a tensor that holds them itself: another file could be any file of the machine."""
    from onnx import numpy_helper

    if tensor.data_location == tensor.EXTERNAL or tensor.external_data:
        raise CheckpointError(
            f"{name} keeps weights in another file; save it as one: onnx.save(onnx.load({name!r}), 'model.onnx')"
        )
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
        raise CheckpointError(f"{name} has a tensor {tensor.name!r} that cannot be read ({error})") from error


def _module_name(node: str) -> str:
    """`/ssh1/conv5X5_1/conv5X5_1.0_1/Conv` (its second use) names the module `ssh1.conv5X5_1.0`."""
    modules = node.strip("/").split("/")[:-1]
    if not modules:
        return node
    last = re.sub(r"(\.\d+)_\d+$", r"\1", modules[-1])
    return last if len(modules) == 1 else f"{modules[0]}.{last}"


def _backbone(prefix: str, depthwise: tuple[str, str], pointwise: tuple[str, str]) -> Iterator[Layer]:
    yield Layer("backbone.stem", f"{prefix}.stage1.0.0", f"{prefix}.stage1.0.1")
    for stage, blocks in enumerate(STAGES):
        for block in range(len(blocks)):
            theirs = f"{prefix}.stage{stage + 1}.{block + 1 if stage == 0 else block}"
            ours = f"backbone.stages.{stage}.{block}"
            yield Layer(f"{ours}.depthwise", f"{theirs}.{depthwise[0]}", f"{theirs}.{depthwise[1]}")
            yield Layer(f"{ours}.pointwise", f"{theirs}.{pointwise[0]}", f"{theirs}.{pointwise[1]}")


def _neck() -> Iterator[Layer]:
    modules = [(f"pyramid.lateral.{i}", f"fpn.output{i + 1}") for i in range(3)]
    modules += [(f"pyramid.merge.{i}", f"fpn.merge{i + 1}") for i in range(2)]
    context = {"conv3": "conv3X3", "conv5_1": "conv5X5_1", "conv5_2": "conv5X5_2", "conv7_2": "conv7X7_2"}
    context["conv7_3"] = "conv7x7_3"
    modules += [(f"context.{i}.{ours}", f"ssh{i + 1}.{theirs}") for i in range(3) for ours, theirs in context.items()]
    for ours, theirs in modules:
        yield Layer(ours, f"{theirs}.0", f"{theirs}.1")


def _biubug6() -> Iterator[Layer]:
    yield from _backbone("body", ("0", "1"), ("3", "4"))
    yield from _neck()
    for ours, theirs in (("score", "ClassHead"), ("box", "BboxHead"), ("landmark", "LandmarkHead")):
        yield from (Layer(f"{ours}.{i}", f"{theirs}.{i}.conv1x1", None) for i in range(3))


def _yakhyo() -> Iterator[Layer]:
    yield from _backbone("fx", ("0.0", "0.1"), ("1.0", "1.1"))
    yield from _neck()
    for ours, theirs in (("score", "class_head"), ("box", "bbox_head"), ("landmark", "landmark_head")):
        yield from (Layer(f"{ours}.{i}", f"{theirs}.{theirs}.{i}", None) for i in range(3))


def _ours() -> Iterator[Layer]:
    for layer in _biubug6():
        if layer.norm is None:
            yield Layer(layer.ours, layer.ours, None)
        else:
            yield Layer(layer.ours, f"{layer.ours}.conv", f"{layer.ours}.norm")


FAMILIES: Mapping[str, tuple[str, Callable[[], Iterator[Layer]]]] = {
    "biubug6": ("body.", _biubug6),
    "yakhyo": ("fx.", _yakhyo),
    "retinaface-edge": ("backbone.", _ours),
}
"""Family name: the prefix that only its keys have, and its layers."""
