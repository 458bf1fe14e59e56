"""The form in which every network goes to quantisation and lowering: the passes that lead to it, in order."""

from __future__ import annotations

import onnx_ir as ir

from .constants import constants_as_initialisers
from .convolution_biases import convolution_biases
from .fold_average import fold_average
from .fold_normalisation import fold_normalisation
from .module_names import module_names

PASSES = (constants_as_initialisers, convolution_biases, fold_normalisation, fold_average, module_names)


def canonical(model: ir.Model) -> ir.Model:
    """A simplified float graph, its batch norms folded, in this project's form. Raises `PassError`."""
    for rewrite in PASSES:
        model = rewrite(model)
    return model
