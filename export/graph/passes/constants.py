"""`Constant` nodes as initialisers: exporters write either, and what follows reads one."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from .graph_pass import graph_pass, no_constant_nodes


@graph_pass(ensures=[no_constant_nodes])
def constants_as_initialisers(model: ir.Model) -> ir.Model:
    """The graph without `Constant` nodes."""
    if no_constant_nodes(model) is None:
        return model
    lifted = model.clone()
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(lifted)
    return lifted
