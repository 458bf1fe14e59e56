"""Graph passes: functions from a model to a model that state what they require and ensure, and are held to it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import onnx_ir as ir

from retinaface_edge.calibration.graph.onnx_graph import constant, input_of, name_of
from retinaface_edge.runtime.errors import RetinaFaceEdgeError

Pass = Callable[[ir.Model], ir.Model]
Condition = Callable[[ir.Model], str | None]
"""None where the condition holds of a model, else what is wrong with it."""


class PassError(RetinaFaceEdgeError, ValueError):
    """A pass was given a graph that it cannot take, or did not give what it promises; the message names the pass."""


def graph_pass(requires: Sequence[Condition] = (), ensures: Sequence[Condition] = ()) -> Callable[[Pass], Pass]:
    """Check `requires` before and `ensures` after the decorated pass.

    Every pass must leave its argument unchanged, give that very model back where it has nothing to do, and keep the
    names and shapes of inputs and outputs. Raises `PassError` naming the pass.
    """

    def decorate(rewrite: Pass) -> Pass:
        name = rewrite.__name__

        @functools.wraps(rewrite)
        def checked(model: ir.Model) -> ir.Model:
            for condition in requires:
                if wrong := condition(model):
                    raise PassError(f"the pass {name} cannot take this graph: {wrong}")
            result = rewrite(model)
            if result is model:
                return model
            if _ends(result) != _ends(model):
                raise PassError(f"the pass {name} changed the graph's inputs or outputs: {_ends(result)}")
            for condition in ensures:
                if wrong := condition(result):
                    raise PassError(f"the pass {name} did not do its work: {wrong}")
            return result

        return checked

    return decorate


def convolutions_have_biases(model: ir.Model) -> str | None:
    """Every convolution reads a bias."""
    missing = [node.name for node in model.graph if node.op_type == "Conv" and input_of(node, 2) is None]
    return f"the convolution {missing[0]} has no bias" if missing else None


def weights_are_constants(model: ir.Model) -> str | None:
    """The weights of every convolution are known, as floats."""
    odd = [node.name for node in model.graph if node.op_type == "Conv" and constant(input_of(node, 1)) is None]
    return f"the weights of the convolution {odd[0]} are computed" if odd else None


def names_are_unique(model: ir.Model) -> str | None:
    """No two nodes, and no two values, have one name."""
    nodes = [node.name for node in model.graph]
    values = [*model.graph.initializers, *(name_of(value) for node in model.graph for value in node.outputs)]
    for kind, names in (("nodes", nodes), ("values", values)):
        if len(set(names)) < len(names):
            return f"two {kind} are named {next(name for name in names if names.count(name) > 1)}"
    return None


def no_constant_nodes(model: ir.Model) -> str | None:
    """Constants are initialisers."""
    left = [node.name for node in model.graph if node.op_type == "Constant"]
    return f"the node {left[0]} is a Constant" if left else None


def _ends(model: ir.Model) -> list[tuple[str, str]]:
    return [(name_of(value), str(value.shape)) for value in (*model.graph.inputs, *model.graph.outputs)]
