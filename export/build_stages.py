"""The stages of a build, each made once: export, quantisation, lowering, and the dense branch.

A stage imports what it runs when it runs, so that a build whose stages are all in the cache starts no PyTorch.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from retinaface_edge.calibration.recipe import Recipe, for_branch, recipe_from_json
from retinaface_edge.runtime.records import to_json
from retinaface_edge.runtime.spec import Contract, Spec

from .build_products import (
    CheckpointFacts,
    DenseBranch,
    ExportedNetwork,
    LoweredNetwork,
    QuantisedNetwork,
    RecognisedCheckpoint,
    ResizedNetwork,
    SelfChecked,
    from_files,
    to_files,
)
from .build_request import BuildRequest, Reporter
from .stage_cache import Files, Stages, digest_of

if TYPE_CHECKING:
    import onnx

    from .lower.tflite_schema import Graph
    from .models.mesh_branch import Branch

EXPORTERS = ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime")
QUANTISERS = ("onnx", "onnx-ir", "onnxruntime", "openvino", "ai-edge-litert", "pillow")
LOWERERS = ("onnx", "onnx-ir", "openvino", "ai-edge-litert", "flatbuffers")


def recognised(stages: Stages, request: BuildRequest, reporter: Reporter) -> RecognisedCheckpoint:
    """What the checkpoint is, and the contract that its family and the user's settings make."""

    def make() -> Files:
        read = request.checkpoint.read()
        facts = CheckpointFacts(read.family, read.title, read.digest, read.wrappings, read.terms)
        return to_files(RecognisedCheckpoint(facts, read.spec(*request.size).to_json()))

    inputs = {"checkpoint": request.checkpoint.key, "size": list(request.size)}
    return from_files(RecognisedCheckpoint, stages.run("read the checkpoint", inputs, EXPORTERS, make))


def exported(stages: Stages, spec: Spec, request: BuildRequest, reporter: Reporter) -> ExportedNetwork:
    """The checkpoint as an FP32 ONNX model."""

    def make() -> Files:
        from .graph.multiply_accumulates import multiply_accumulates

        reporter.stage("export to ONNX")
        model = request.checkpoint.read().graph(spec, request.opset)
        return to_files(ExportedNetwork(_serialised(model), multiply_accumulates(model)))

    inputs = {"checkpoint": request.checkpoint.key, "spec": spec.to_json(), "opset": request.opset}
    return from_files(ExportedNetwork, stages.run("export to ONNX", inputs, (*EXPORTERS, "onnx-ir"), make))


def quantised(
    stages: Stages, network: ExportedNetwork, spec: Spec, request: BuildRequest, reporter: Reporter
) -> QuantisedNetwork:
    """The network as an INT8 model, by the request's images and recipe."""

    def make() -> Files:
        import onnx

        from retinaface_edge.calibration.calibrate import calibrate
        from retinaface_edge.calibration.dataset.checks import judge
        from retinaface_edge.calibration.layer_report import format_fits, layer_fits
        from retinaface_edge.calibration.qdq import quantise

        model = onnx.load_from_string(network.model)
        warnings: list[str] = []
        pictures = request.images.read(spec, warnings.append)
        reporter.stage(f"calibrate on {len(pictures.inputs)} images")
        calibration = calibrate(model, spec, pictures, request.recipe, reporter.progress)
        if request.max_drift is not None:
            from .precision_search import search

            calibration, _ = search(calibration, model, spec, request.max_drift, reporter)
        reporter.stage(f"quantise by the recipe {request.recipe.name}")
        int8 = quantise(calibration, spec)
        warnings += [f"warning: {text}" for text in judge(pictures, calibration.faces, spec)]
        return to_files(
            QuantisedNetwork(
                model=_serialised(int8),
                calibration=_json(to_json(calibration.record)),
                recipe=_json(calibration.recipe.to_json()),
                layers=format_fits(layer_fits(calibration, int8)).encode(),
                warnings=tuple(warnings),
            )
        )

    inputs = {
        "model": digest_of(network.model),
        "spec": spec.to_json(),
        "images": request.images.digest,
        "recipe": request.recipe.to_json(),
        "max_drift": request.max_drift,
    }
    return from_files(QuantisedNetwork, stages.run("calibration and INT8 model", inputs, QUANTISERS, make))


def resized(stages: Stages, network: ExportedNetwork, int8: QuantisedNetwork, spec: Spec) -> ResizedNetwork:
    """Both models for the input size of `spec`: the same weights and quantisation parameters."""

    def make() -> Files:
        import onnx

        from .graph.input_size import with_input_size
        from .graph.multiply_accumulates import multiply_accumulates

        fp32, integers = (
            with_input_size(onnx.load_from_string(model), spec.with_features) for model in (network.model, int8.model)
        )
        return to_files(ResizedNetwork(_serialised(fp32), _serialised(integers), multiply_accumulates(fp32)))

    inputs = {"fp32": digest_of(network.model), "int8": digest_of(int8.model), "spec": spec.to_json()}
    return from_files(ResizedNetwork, stages.run(f"resize to {spec.width}x{spec.height}", inputs, ("onnx",), make))


def checked(
    stages: Stages,
    network: ExportedNetwork,
    int8: QuantisedNetwork,
    spec: Spec,
    request: BuildRequest,
    reporter: Reporter,
) -> SelfChecked:
    """Whether the detector's faces are plausible, and INT8's are FP32's. Raises `SelfCheckError` when they are not."""

    def make() -> Files:
        import onnx

        from .build_check import check_fp32, check_int8

        reporter.stage("self-check")
        inputs = request.images.read(spec, lambda warning: None).inputs
        fp32, quantised_model = (onnx.load_from_string(model) for model in (network.model, int8.model))
        notes = (check_fp32(fp32, spec, inputs), check_int8(fp32, quantised_model, spec, inputs))
        return to_files(SelfChecked(tuple(note for note in notes if note is not None)))

    inputs = {
        "fp32": digest_of(network.model),
        "int8": digest_of(int8.model),
        "spec": spec.to_json(),
        "images": request.images.digest,
    }
    return from_files(SelfChecked, stages.run("self-check", inputs, QUANTISERS, make))


def dense(
    stages: Stages,
    branch: Branch,
    detector: ExportedNetwork,
    spec: Spec,
    request: BuildRequest,
    reporter: Reporter,
) -> DenseBranch:
    """The dense branch, quantised on the faces that the detector finds in the same images.

    By the request's recipe as `for_branch` changes it.
    """
    recipe = for_branch(request.recipe)

    def make() -> Files:
        import onnx

        from retinaface_edge.calibration.calibrate import calibrate
        from retinaface_edge.calibration.dataset.face_samples import faces_of
        from retinaface_edge.calibration.qdq import quantise

        from .graph.export import to_onnx
        from .models.mesh_branch import deployed

        reporter.stage("export and quantise the dense branch")
        model = to_onnx(deployed(branch.model).eval(), branch.mesh, request.opset)
        faces = faces_of(onnx.load_from_string(detector.model), spec, request.images.read(spec, lambda warning: None))
        calibration = calibrate(model, branch.mesh, faces, recipe)
        return to_files(
            DenseBranch(
                fp32=_serialised(model),
                int8=_serialised(quantise(calibration, branch.mesh)),
                calibration=_json(to_json(calibration.record)),
                recipe=_json(calibration.recipe.to_json()),
            )
        )

    inputs = {
        "branch": branch.digest,
        "model": digest_of(detector.model),
        "spec": spec.to_json(),
        "images": request.images.digest,
        "recipe": recipe.to_json(),
        "opset": request.opset,
    }
    libraries = (*EXPORTERS, *QUANTISERS)
    return from_files(DenseBranch, stages.run("export and quantise the dense branch", inputs, libraries, make))


def lowered(
    stages: Stages,
    name: str,
    graph: bytes,
    contract: Contract,
    explained: QuantisedNetwork | DenseBranch | None,
    reporter: Reporter,
) -> LoweredNetwork:
    """An ONNX model for OpenVINO and TFLite; `explained` has calibration and recipe of an INT8 one."""
    explanations = {} if explained is None else {"calibration": explained.calibration, "recipe": explained.recipe}

    def make() -> Files:
        import onnx

        from .lower.openvino import lower_openvino
        from .lower.tflite import lower_tflite
        from .lower.tflite_schema import serialise

        reporter.stage(name)
        model = onnx.load_from_string(graph)
        xml, weights = lower_openvino(model, contract)
        tflite = lower_tflite(model, {}) if explained is None else _lower_integers(model, explained)
        return to_files(LoweredNetwork(xml, weights, serialise(tflite)))

    inputs = {
        "model": digest_of(graph),
        "outputs": [output.name for output in contract.outputs],
        **{key: digest_of(data) for key, data in explanations.items()},
    }
    return from_files(LoweredNetwork, stages.run(name, inputs, LOWERERS, make))


def _lower_integers(model: onnx.ModelProto, explained: QuantisedNetwork | DenseBranch) -> Graph:
    """The TFLite graph of an INT8 model. Raises `LoweringError` when other layers are float than the recipe says."""
    from retinaface_edge.calibration.record import quant_params_from_json

    from .lower.tflite import LoweringError, lower_tflite

    recipe: Recipe = recipe_from_json(json.loads(explained.recipe), "recipe.json")
    tflite = lower_tflite(model, quant_params_from_json(json.loads(explained.calibration)), recipe.image_columns)
    float_layers = [n.name for n in model.graph.node if n.op_type == "Conv" and recipe.is_float(n.name)]
    if bool(tflite.float_operators) != bool(float_layers):
        raise LoweringError(
            f"{tflite.float_operators} operators of the INT8 TFLite are float; the recipe keeps "
            f"{', '.join(float_layers) or 'none'} float"
        )
    return tflite


def _serialised(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()
