"""A bias for every convolution: the simplifier drops one of zeros, and quantisation and lowering count on one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from retinaface_edge.calibration.graph.onnx_graph import add_constant, constant_of, input_of, name_of

from .graph_pass import convolutions_have_biases, graph_pass, weights_are_constants


@graph_pass(requires=[weights_are_constants], ensures=[convolutions_have_biases])
def convolution_biases(model: ir.Model) -> ir.Model:
    """The graph with a bias of zeros where a convolution had none."""
    if convolutions_have_biases(model) is None:
        return model
    changed = model.clone()
    for node in changed.graph:
        if node.op_type == "Conv" and input_of(node, 2) is None:
            name = name_of(node.inputs[1]).removesuffix(".weight") + ".bias"
            while name in changed.graph.initializers:  # layers that share weights
                name += "_"
            bias = add_constant(changed.graph, name, np.zeros(len(constant_of(node, 1)), np.float32))
            node.resize_inputs(3)
            node.replace_input_with(2, bias)
    return changed
