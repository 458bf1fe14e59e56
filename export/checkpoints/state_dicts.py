"""State dicts from `.pth` and `.safetensors` files, without running any code in them."""

from __future__ import annotations

import hashlib
import io
import re
import warnings
import zipfile
from dataclasses import replace

import torch
from torch import Tensor

from ..models.neck import Upsampling
from .assemble import Recognised, assemble, check_shapes
from .checkpoint import MAX_BYTES, Checkpoint, CheckpointError
from .families import recognise
from .interpretation import Overrides, interpretation, preferred, read_settings
from .wrappings import StateDict, unwrap

SAVE_AGAIN = "save it again with torch.save(model.state_dict(), path)"
SCRFD_MARKS = ("neck.lateral_convs.", "bbox_head.stride_cls.", "bbox_head.cls_stride_convs.")


def read_pickle(content: bytes, name: str, overrides: Overrides | None = None) -> Checkpoint:
    """Read what `torch.save` wrote, running no code in it. `name` is for messages. Raises `CheckpointError`."""
    return _checkpoint(_loaded(content, name), content, name, overrides)


def read_safetensors(content: bytes, name: str, overrides: Overrides | None = None) -> Checkpoint:
    """Read a safetensors file. `name` is for messages. Raises `CheckpointError`."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError as error:
        raise CheckpointError(f"{name} needs safetensors; run: pip install 'retinaface-edge[build]'") from error
    try:
        loaded = load(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise CheckpointError(f"{name} is not a safetensors file ({reason}); give a RetinaFace checkpoint") from error
    return _checkpoint(loaded, content, name, overrides)


def _checkpoint(loaded: object, content: bytes, name: str, overrides: Overrides | None) -> Checkpoint:
    state = unwrap(loaded)
    if state is None:
        if isinstance(loaded, torch.nn.Module):
            raise CheckpointError(f"{name} holds a whole module and no plain tensors; {SAVE_AGAIN}")
        raise CheckpointError(f"{name} holds no state dict of tensors; {SAVE_AGAIN}")
    _check_tensors(state, name)
    recognised = recognise(state.tensors, name)
    saved, upsampling = read_settings(loaded, name)
    if upsampling is not None:
        recognised = _upsampled(recognised, upsampling, name)
    check_shapes(state.tensors, recognised, name)  # first, or a head that fits no other would ask for other anchors
    shape = recognised.architecture
    if not shape.may_be_leaky:
        saved = replace(saved, leaky=None)
    settings = interpretation(shape, preferred(overrides or Overrides(), saved), name)
    shape = replace(shape, leaky=settings.leaky)
    model = assemble(state.tensors, replace(recognised, architecture=shape), name)
    return Checkpoint(model, recognised.family, hashlib.sha256(content).hexdigest(), settings, state.wrappings)


def _upsampled(recognised: Recognised, upsampling: str, name: str) -> Recognised:
    """The upsampling changes no shape, so a file of ours says it."""
    if upsampling not in [known.value for known in Upsampling]:
        raise CheckpointError(f"{name} has damaged settings beside its weights (no upsampling is {upsampling[:40]!r})")
    shape = replace(recognised.architecture, upsampling=Upsampling(upsampling))
    return replace(recognised, architecture=shape)


def _loaded(content: bytes, name: str) -> object:
    try:
        _check_archive(content, name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except CheckpointError:
        raise
    except Exception as error:  # PyTorch's reader of hostile pickles trips over them in every way there is
        raise CheckpointError(
            f"{name} cannot be read as a PyTorch checkpoint of plain tensors ({_reason(error)}); {SAVE_AGAIN}"
        ) from error


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if match := re.search(r"Unsupported (?:global|class): (?:GLOBAL )?([\w.]+)", text, re.IGNORECASE):
        return f"it is a whole pickled module or holds other objects, here {match[1]}, and reading them runs their code"
    return text[:120] or type(error).__name__


def _check_archive(content: bytes, name: str) -> None:
    """Refuse TorchScript, and an archive that would unpack to more than any RetinaFace has. Nothing is unpacked."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return
    entries = zipfile.ZipFile(io.BytesIO(content)).infolist()
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > MAX_BYTES:
        raise CheckpointError(f"{name} would unpack to {unpacked:,} bytes; give a RetinaFace checkpoint")
    if any(entry.filename.partition("/")[2].startswith(("code/", "constants.pkl")) for entry in entries):
        raise CheckpointError(
            f"{name} is a TorchScript module, not plain tensors; save its weights with "
            "torch.save(torch.jit.load(path).state_dict(), 'weights.pth') and give that file"
        )


def _check_tensors(state: StateDict, name: str) -> None:
    """Refuse tensors that hold no plain numbers, before anything is computed with them."""
    if any(key.startswith(SCRFD_MARKS) for key in state.tensors):
        raise CheckpointError(
            f"{name} is a state dict of mmdetection's SCRFD; export it to ONNX in InsightFace's detection/scrfd with "
            "python tools/scrfd2onnx.py CONFIG CHECKPOINT --shape 480 640, and give the .onnx file"
        )
    quantised = [key for key, value in state.tensors.items() if value.is_quantized]
    if quantised or any(key.endswith((".zero_point", "._packed_params")) for key in state.tensors):
        kind = "".join(f" ({key} is {str(state.tensors[key].dtype).removeprefix('torch.')})" for key in quantised[:1])
        raise CheckpointError(
            f"{name} is already quantised{kind}; give the float checkpoint that it was made from: "
            "the build quantises it"
        )
    for key, value in state.tensors.items():
        if what := _unusable(value):
            raise CheckpointError(f"{name} has {what} tensor {key}; save dense float tensors on a CPU")


def _unusable(value: Tensor) -> str:
    if value.is_nested:
        return "a nested"
    if value.layout is not torch.strided:
        return "a sparse"
    if value.is_meta:
        return "an empty (meta)"
    if value.is_floating_point() and value.element_size() == 1:
        return "an 8-bit float"
    return "a complex" if value.is_complex() else ""
