"""PyTorch to ONNX: one file, static shape, every node named after the module it came from."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import nn

from retinaface_edge.calibration.graph.onnx_graph import read_graph, to_proto
from retinaface_edge.calibration.graph.session import run
from retinaface_edge.runtime.errors import RetinaFaceEdgeError
from retinaface_edge.runtime.spec import Contract

from .opset import DEFAULT_OPSET, OPSETS
from .passes.canonical import canonical

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
    simplified = to_proto(canonical(read_graph(_simplify(exported, spec))))
    onnx.checker.check_model(simplified, full_check=True)
    with torch.no_grad():
        expected = [output.numpy() for output in model(torch.from_numpy(image))]
    for stage, candidate in (("export", exported), ("simplification", simplified)):
        _compare(stage, spec, run(candidate, spec, image), expected)
    return simplified


def _export(model: nn.Module, spec: Contract, image: NDArray[Any], opset: int) -> onnx.ModelProto:
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                model.eval(),
                (torch.from_numpy(image),),
                input_names=[spec.input_name],
                output_names=[output.name for output in spec.outputs],
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
        except Exception as error:
            if (refusal := _of_the_system(error)) is not None:
                raise refusal from error
            raise
    assert program is not None
    return _strip(program.model_proto)


def _of_the_system(error: BaseException) -> Exception | None:
    """The refusal of the system, such as a full disk, that the exporter took for a fault of the model."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError):
            return OSError(found.errno, found.strerror, found.filename)
        if isinstance(found, MemoryError):
            return MemoryError()
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return None


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
