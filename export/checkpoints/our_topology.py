"""The arrangement of our own model, traced from its PyTorch form."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from ..models.layers import ConvNorm
from ..models.retinaface import Architecture, Predictions, RetinaFace
from .topology import ADD, CONCAT, INPUT, Topology, activation, convolution, pooling, upsampling


def our_topology(shape: Architecture) -> Topology:
    """Steps of the `RetinaFace` of that shape; a convolution's key is its `Layer.ours`."""
    with torch.device("meta"):
        model = RetinaFace(shape)
    traced = fx.symbolic_trace(model)
    result, steps = Topology(), {}
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            steps[node] = result.add(INPUT)
        elif node.op == "call_module":
            steps[node] = _module(result, model, node, steps)
        elif node.op in ("call_function", "call_method") and node.target is not Predictions:
            steps[node] = _function(result, node, steps)
    return result


def _module(result: Topology, model: nn.Module, node: fx.Node, steps: dict[fx.Node, int]) -> int:
    name, module = str(node.target), model.get_submodule(str(node.target))
    source = steps[node.all_input_nodes[0]]
    if isinstance(module, nn.BatchNorm2d):
        return source
    assert isinstance(module, nn.Conv2d)
    kind = convolution(module.weight.shape, module.stride[0], int(module.padding[0]), module.dilation[0], module.groups)
    parent = name.rpartition(".")[0]
    key = parent if parent and isinstance(model.get_submodule(parent), ConvNorm) else name
    return result.add(kind, (source,), key, identity=key)


def _function(result: Topology, node: fx.Node, steps: dict[fx.Node, int]) -> int:
    inputs = tuple(steps[read] for read in node.all_input_nodes)
    if node.op == "call_method":
        assert node.target == "clamp"
        return result.add(activation("relu6"), inputs)
    target: Callable[..., Any] = node.target  # type: ignore[assignment]
    if target is functional.max_pool2d:
        # Tracing turns the arguments of this function into keywords.
        given = dict(zip(("kernel_size", "stride", "padding"), node.args[1:], strict=False)) | dict(node.kwargs)
        kernel, stride, padding = (int(str(given[name])) for name in ("kernel_size", "stride", "padding"))
        return result.add(pooling(kernel, stride, padding), inputs)
    if target is functional.interpolate:
        return result.add(upsampling(str(node.kwargs["mode"])), inputs)
    kinds = {
        functional.leaky_relu: activation("leaky-relu"),
        functional.relu: activation("relu"),
        operator.add: ADD,
        torch.cat: CONCAT,
    }
    return result.add(kinds[target], inputs)
