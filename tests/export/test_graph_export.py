"""The exported graph: checked numerically, named after its modules, the same for every machine."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from untrained import random_model

from retinaface_edge.export.checkpoints.checkpoint import Checkpoint
from retinaface_edge.export.graph import export
from retinaface_edge.export.models.deploy import Deploy
from retinaface_edge.runtime import Spec, SpecError
from retinaface_edge.runtime.spec import nearest_size

SMALL = Spec(96, 64)


def test_onnx_runtime_gives_what_pytorch_gives_on_photographs(
    checkpoint: Checkpoint, fp32: onnx.ModelProto, spec: Spec, photographs: list[np.ndarray]
) -> None:
    deploy = Deploy(checkpoint.model, spec).eval()
    for image in photographs:
        outputs = export.run(fp32, spec, image)
        for ours, theirs in zip(outputs, deploy(torch.from_numpy(image)), strict=True):
            assert np.abs(ours - theirs.numpy()).max() <= 1e-4


def test_input_and_outputs_are_the_contract(fp32: onnx.ModelProto, spec: Spec) -> None:
    def described(entry: onnx.ValueInfoProto) -> tuple[str, int, tuple[int, ...]]:
        tensor = entry.type.tensor_type
        return entry.name, tensor.elem_type, tuple(d.dim_value for d in tensor.shape.dim)

    assert [described(entry) for entry in fp32.graph.input] == [("image", onnx.TensorProto.UINT8, spec.input_shape)]
    expected = [(output.name, onnx.TensorProto.FLOAT, output.shape) for output in spec.outputs]
    assert [described(entry) for entry in fp32.graph.output] == expected


def test_nothing_of_the_exporting_machine_is_in_the_file(fp32: onnx.ModelProto) -> None:
    text = fp32.SerializeToString()
    assert b"/" not in text.replace(b"image", b"") or b".py" not in text
    assert not fp32.metadata_props
    assert not any(node.metadata_props or node.doc_string for node in fp32.graph.node)


def test_convolutions_bear_their_modules_names(fp32: onnx.ModelProto, checkpoint: Checkpoint) -> None:
    names = {node.name for node in fp32.graph.node if node.op_type == "Conv"}
    modules = {name for name, module in checkpoint.model.named_modules() if isinstance(module, torch.nn.Conv2d)}
    assert names == {name.removesuffix(".conv") for name in modules}


@pytest.mark.parametrize("opset", [17, 18, 21])
def test_the_opset_is_the_one_asked_for(opset: int) -> None:
    model = export.to_onnx(Deploy(random_model(seed=1), SMALL).eval(), SMALL, opset)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [opset]


def test_an_opset_out_of_reach_is_refused() -> None:
    with pytest.raises(export.ExportError, match="opset 9 is not supported; choose 17 to 21"):
        export.to_onnx(Deploy(random_model(seed=1), SMALL).eval(), SMALL, 9)


def test_a_simplification_that_changes_the_result_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(whole: onnx.ModelProto) -> tuple[onnx.ModelProto, bool]:
        model = onnx.ModelProto()
        model.CopyFrom(whole)
        for tensor in model.graph.initializer:
            if tensor.name.endswith("score.0.bias"):
                wrong = onnx.numpy_helper.to_array(tensor) + 0.01
                tensor.CopyFrom(onnx.numpy_helper.from_array(wrong.astype(np.float32), tensor.name))
        return model, True

    monkeypatch.setattr("onnxsim.simplify", broken)
    with pytest.raises(export.ExportError, match="after simplification, output score_8 differs"):
        export.to_onnx(Deploy(random_model(seed=2), SMALL).eval(), SMALL)


def test_a_simplifier_that_gives_up_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxsim.simplify", lambda model: (model, False))
    with pytest.raises(export.ExportError, match="onnxsim could not confirm"):
        export.to_onnx(Deploy(random_model(seed=2), SMALL).eval(), SMALL)


@given(st.integers(-100, 4000), st.integers(-100, 4000))
def test_sizes_are_valid_or_refused_with_the_nearest_valid_one(width: int, height: int) -> None:
    nearest = nearest_size(width, height)
    valid = 64 <= width <= 1920 and 64 <= height <= 1088 and width % 32 == 0 == height % 32
    if valid:
        assert nearest == (width, height)
        assert Spec(width, height).input_shape == (1, height, width, 3)
    else:
        with pytest.raises(SpecError, match=f"nearest valid size is {nearest[0]}x{nearest[1]}"):
            Spec(width, height)
        assert Spec(*nearest).input_shape
    # No other valid size is nearer, side by side.
    for side, got, most in ((width, nearest[0], 1920), (height, nearest[1], 1088)):
        assert abs(got - side) == min(abs(other - side) for other in range(64, most + 1, 32))


@pytest.mark.parametrize("refusal", [OSError(28, "No space left on device"), MemoryError()])
@pytest.mark.parametrize("explicit", [False, True])
def test_what_the_system_refuses_the_exporter_is_not_a_fault_of_the_model(
    refusal: Exception, explicit: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        try:
            raise refusal
        except Exception as error:
            if explicit:
                raise ValueError("the model cannot be exported") from error
            raise ValueError("the model cannot be exported")  # noqa: B904  # PyTorch does so, too

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(type(refusal)):
        export.to_onnx(Deploy(random_model(seed=1), SMALL).eval(), SMALL)


def test_a_fault_of_the_model_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the exporter has recovered from a missing file before."""

    def fails(*_: object, **__: object) -> None:
        try:
            open("/missing/file")  # noqa: SIM115
        except OSError:
            raise ValueError("the model cannot be exported") from None

    monkeypatch.setattr(torch.onnx, "export", fails)
    with pytest.raises(ValueError, match="cannot be exported"):
        export.to_onnx(Deploy(random_model(seed=1), SMALL).eval(), SMALL)
