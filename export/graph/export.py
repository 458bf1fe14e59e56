"""PyTorch to ONNX: one file, static shape, every node named after the module it came from."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from retinaface_edge.runtime.errors import RetinaFaceEdgeError
from retinaface_edge.runtime.spec import Contract

from .opset import DEFAULT_OPSET, OPSETS

TOLERANCE = 1e-4
"""Of the largest value of an output."""
SMALLEST = 0.1
"""Below this size an output is compared as if it were of this size: its error comes from larger values before it."""


class ExportError(RetinaFaceEdgeError):
    """An export whose result is not what was asked for, or does not compute what the model computes."""


def to_onnx(model: nn.Module, spec: Contract, opset: int = DEFAULT_OPSET) -> onnx.ModelProto:
    """Export a deploy form, simplify it and check the result against the unsimplified model and PyTorch.

    Raises `ExportError` when the opset is not supported or not followed, or when outputs differ by more than 1e-4 of
    their largest value.
    """
    if opset not in OPSETS:
        raise ExportError(f"opset {opset} is not supported; choose {OPSETS.start} to {OPSETS.stop - 1}")
    random = np.random.default_rng(0)
    image = (
        random.integers(0, 256, spec.input_shape, np.uint8)
        if spec.input_name == "image"
        else random.standard_normal(spec.input_shape, np.float32)
    )
    exported = _export(model, spec, image, opset)
    written = next(entry.version for entry in exported.opset_import if entry.domain in ("", "ai.onnx"))
    if written != opset:
        raise ExportError(f"opset {opset} was asked for, the exporter wrote {written}; ask for {written}")
    simplified = _name_after_modules(_with_biases(_simplify(exported, spec)))
    onnx.checker.check_model(simplified, full_check=True)
    expected = [output.numpy() for output in model(torch.from_numpy(image))]
    for stage, candidate in (("export", exported), ("simplification", simplified)):
        _compare(stage, spec, run(candidate, spec, image), expected)
    return simplified


def run(model: onnx.ModelProto, spec: Contract, image: NDArray[Any]) -> list[NDArray[np.float32]]:
    """Outputs of an ONNX model for one image, by ONNX Runtime, in the order of `spec.outputs`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run([output.name for output in spec.outputs], {spec.input_name: image})  # type: ignore[no-any-return]


def _export(model: nn.Module, spec: Contract, image: NDArray[Any], opset: int) -> onnx.ModelProto:
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model.eval(),
            (torch.from_numpy(image),),
            input_names=[spec.input_name],
            output_names=[output.name for output in spec.outputs],
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return _strip(program.model_proto)


@contextlib.contextmanager  # type: ignore[arg-type]
def _quiet() -> contextlib.AbstractContextManager[None]:  # type: ignore[misc]
    """The exporter logs and prints what only its authors need."""
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def _strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without stack traces and file paths of the machine that exported."""
    model.producer_name, model.producer_version = "retinaface-edge", ""
    model.doc_string, model.graph.doc_string, model.graph.name = "", "", "retinaface"
    del model.metadata_props[:], model.graph.metadata_props[:], model.graph.value_info[:]
    for item in (*model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    return model


def _simplify(model: onnx.ModelProto, spec: Contract) -> onnx.ModelProto:
    import onnxsim

    with _quiet():
        simplified, checked = onnxsim.simplify(model)
    if not checked:
        raise ExportError("onnxsim could not confirm its own result; report this with the checkpoint's family")
    names = [output.name for output in simplified.graph.output]
    if names != [output.name for output in spec.outputs]:
        raise ExportError(f"simplification changed the outputs to {', '.join(names)}")
    return _strip(simplified)


def _with_biases(model: onnx.ModelProto) -> onnx.ModelProto:
    """The simplifier drops a convolution's bias of zeros; quantisation and lowering count on one."""
    channels = {tensor.name: tensor.dims[0] for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv" and len(node.input) == 2:
            name = node.input[1].removesuffix(".weight") + ".bias"
            zeros = np.zeros(channels[node.input[1]], np.float32)
            model.graph.initializer.append(numpy_helper.from_array(zeros, name))
            node.input.append(name)
    return model


def _name_after_modules(model: onnx.ModelProto) -> onnx.ModelProto:
    """Name each convolution after its module and what follows it by what it does, tensors like their producers.

    `backbone.stem` is the value before its activation, `backbone.stem.activation` the one after.
    """
    outputs = {output.name for output in model.graph.output}
    renamed: dict[str, str] = {}
    taken: set[str] = set()
    for tensor in model.graph.initializer:
        name = tensor.name.removeprefix("network.").replace(".conv.weight", ".weight").replace(".conv.bias", ".bias")
        renamed[tensor.name] = tensor.name = name
    for node in model.graph.node:
        source = renamed.get(node.input[0], node.input[0])
        if node.op_type == "Conv":
            name = renamed[node.input[1]].removesuffix(".weight")
        elif node.op_type in ("LeakyRelu", "Relu"):
            name = f"{source}.activation"
        else:
            name = f"{source}.{node.op_type.lower()}"
        while name in taken:
            name += "_"
        taken.add(name)
        node.name = name
        for index, value in enumerate(node.input):
            node.input[index] = renamed.get(value, value)
        for index, value in enumerate(node.output):
            if value not in outputs:
                renamed[value] = node.output[index] = name
    return model


def _compare(
    stage: str, spec: Contract, results: list[NDArray[np.float32]], expected: list[NDArray[np.float32]]
) -> None:
    """Raise `ExportError` where an output differs by more than `TOLERANCE` of its own largest value."""
    for output, result, reference in zip(spec.outputs, results, expected, strict=True):
        if result.shape != reference.shape:
            raise ExportError(f"after {stage}, output {output.name} is {result.shape}, PyTorch's is {reference.shape}")
        size = max(float(np.abs(reference).max()), SMALLEST)
        difference = float(np.abs(result - reference).max()) / size
        if not difference <= TOLERANCE:
            raise ExportError(
                f"after {stage}, output {output.name} differs from PyTorch by {difference:.2g} of its largest value, "
                f"{size:.3g}; at most {TOLERANCE:g} is rounding"
            )
