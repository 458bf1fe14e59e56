"""Targets for checkpoints: state dicts with tensors of every layout, type and value, and small ONNX detectors."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    import torch

HUGE = 1 << 20
"""Side of a tensor whose values take one number in the file and terabytes in memory."""


def _changes() -> tuple[Callable[[torch.Tensor], Any], ...]:
    """Each makes another kind of tensor in a tensor's place."""
    import torch

    def view(value: torch.Tensor) -> torch.Tensor:
        return torch.cat([value.reshape(1, -1)] * 2)[:, ::1].t()[:, 0].reshape(value.shape)

    return (
        lambda value: value.to_sparse(),
        lambda value: value.reshape(max(value.shape[0], 1) if value.ndim else 1, -1).to_sparse_csr(),
        lambda value: value.to("meta"),
        lambda value: torch.empty((HUGE,) * max(value.ndim, 1), device="meta"),
        lambda value: torch.quantize_per_tensor(value.float(), 0.1, 3, torch.qint8),
        lambda value: torch.zeros(()).expand(value.shape),
        lambda value: torch.zeros(()).expand((HUGE,) * max(value.ndim, 1)),
        lambda value: torch.full_like(value, 1e-42),
        lambda value: torch.full_like(value, float("nan")),
        lambda value: torch.full_like(value, float("inf")),
        lambda value: torch.full_like(value, 3e38),
        lambda value: -torch.ones_like(value),
        lambda value: torch.zeros_like(value),
        lambda value: value.to(torch.complex64),
        lambda value: value.to(torch.float64),
        lambda value: value.to(torch.float16),
        lambda value: value.to(torch.bfloat16),
        lambda value: value.to(torch.float8_e4m3fn),
        lambda value: value.to(torch.int64),
        lambda value: value.to(torch.bool),
        lambda value: torch.nn.Parameter(value.float()),
        lambda value: value[:0] if value.ndim else value.reshape(0, 1)[:0] if value.numel() == 0 else value.reshape(1),
        lambda value: value.reshape(-1),
        lambda value: value[None],
        view,
        lambda value: torch.nested.nested_tensor([value.reshape(-1), value.reshape(-1)[:1]]),
        lambda value: value.to_mkldnn() if value.dtype == torch.float32 and value.ndim else value,
        lambda value: 3,
        lambda value: "text",
        lambda value: None,
        lambda value: {"a": value},
    )


@lru_cache(maxsize=1)
def _state() -> dict[str, torch.Tensor]:
    """A small network of our own names."""
    import torch

    from retinaface_edge.export.models.retinaface import RetinaFace, architecture

    torch.manual_seed(0)
    return dict(RetinaFace(architecture("slim")).state_dict())


def tensors(data: bytes) -> None:
    """`read_pickle` of a whole checkpoint, some of whose tensors are of another layout, type, shape or value."""
    import torch

    from retinaface_edge.export.checkpoints.state_dicts import read_pickle

    state: dict[str, Any] = dict(_state())
    keys, changes = sorted(state), _changes()
    for start in range(1, len(data) - 2, 3):
        kind, which, value = data[start : start + 3]
        key = keys[(which * 256 + value) % len(keys)]
        if isinstance(state[key], torch.Tensor) and state[key].layout is torch.strided:
            try:
                state[key] = changes[kind % len(changes)](state[key])
            except (RuntimeError, NotImplementedError, ValueError):  # PyTorch itself cannot make it
                continue
    wrapped = (state, {"state_dict": state}, {"model": {f"module.{key}": value for key, value in state.items()}})
    buffer = io.BytesIO()
    try:
        torch.save(wrapped[(data[0] if data else 0) % 3], buffer)
    except (RuntimeError, NotImplementedError):
        return
    checkpoint = read_pickle(buffer.getvalue(), "model.pth")
    for key, tensor in checkpoint.model.state_dict().items():
        assert tensor.device.type == "cpu" and tensor.is_contiguous(), key
        assert tensor.dtype in (torch.float32, torch.int64), key


@lru_cache(maxsize=2)
def _detector(objects: bool) -> onnx.ModelProto:
    """Raw heads of SCRFD (or, with `objects`, YuNet) behind one convolution per stride."""
    nodes, outputs, constants, anchors = [], [], [], 1 if objects else 2
    heads = {"score": anchors, "box": 4 * anchors, "landmark": 10 * anchors, **({"object": 1} if objects else {})}
    for stride in (8, 16, 32):
        for head, channels in heads.items():
            name = f"{head}{stride}"
            constants.append(numpy_helper.from_array(np.ones((channels, 3, 3, 3), np.float32), f"{name}.weight"))
            nodes.append(
                helper.make_node(
                    "Conv", ["image", f"{name}.weight"], [f"{name}.raw"], f"{name}.conv",
                    strides=[stride, stride], kernel_shape=[3, 3], pads=[1, 1, 1, 1],
                )
            )  # fmt: skip
            nodes.append(helper.make_node("Transpose", [f"{name}.raw"], [f"{name}.nhwc"], name, perm=[0, 2, 3, 1]))
            last = f"{name}.nhwc"
            if head in ("score", "object"):
                nodes.append(helper.make_node("Sigmoid", [last], [f"{name}.sigmoid"], f"{name}.sigmoid"))
                last = f"{name}.sigmoid"
            nodes.append(helper.make_node("Reshape", [last, f"{head}.shape"], [name], f"{name}.reshape"))
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    constants += [numpy_helper.from_array(np.array([-1, n // anchors]), f"{head}.shape") for head, n in heads.items()]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, "height", "width"])
    graph = helper.make_graph(nodes, "detector", [image], outputs, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def onnx_detector(exchange: Callable[[onnx.GraphProto, bytes], None]) -> Callable[[bytes], None]:
    """The target for SCRFD's and YuNet's readers; `exchange` edits a graph as bytes say."""

    def target(data: bytes) -> None:
        """`read_onnx_detector`, and the contract and graph of what it accepts."""
        from retinaface_edge.export.checkpoints.detectors.recognise import read_onnx_detector
        from retinaface_edge.export.checkpoints.interpretation import Overrides

        content = data[1:]
        if data and data[0] % 4 < 3:
            model = onnx.ModelProto()
            model.CopyFrom(_detector(objects=data[0] % 2 == 1))
            exchange(model.graph, data[1:])
            content = model.SerializeToString()
        found = read_onnx_detector(content, "model.onnx", Overrides())
        if found is not None:
            found.graph(found.spec(64, 64), 18)
        else:
            assert len(data) > 3 or not data or data[0] % 4 == 3, "the whole detector is known"

    return target


EDITS = [b"\0", b"\1", b"\2\0\0\0", *(bytes([i % 3, i, i, 7 * i]) for i in range(32)), bytes(range(0, 60, 2))]
DETECTORS = [b"\0", b"\1", b"\0\0\1\2", b"\1\3\4\5", bytes(range(0, 60, 2)), b"\3\x08\x07"]
