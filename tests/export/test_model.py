"""The deploy form computes what the training form computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from untrained import random_model

from retinaface_edge.export.checkpoints.checkpoint import Checkpoint
from retinaface_edge.export.models.deploy import Deploy
from retinaface_edge.export.models.layers import ConvNorm
from retinaface_edge.export.models.retinaface import RetinaFace
from retinaface_edge.runtime import Spec


def expected_outputs(model: RetinaFace, spec: Spec, image: np.ndarray) -> list[np.ndarray]:
    """The training form's predictions in the contract's form, by its definition."""
    pixels = torch.from_numpy(image).double() - torch.tensor(spec.mean, dtype=torch.float64)
    with torch.no_grad():
        predictions = model.double()(pixels.permute(0, 3, 1, 2))
    model.float()
    scores = []
    for level in predictions.scores:
        background, face = level[:, 0::2], level[:, 1::2]
        probability = torch.softmax(torch.stack([background, face]), dim=0)[1]
        scores.append(torch.logit(probability))
    return [t.permute(0, 2, 3, 1).numpy() for t in (*scores, *predictions.boxes, *predictions.landmarks)]


def test_on_photographs_the_deploy_form_equals_the_training_form(
    checkpoint: Checkpoint, spec: Spec, photographs: list[np.ndarray]
) -> None:
    deploy = Deploy(checkpoint.model, spec).eval()
    for image in photographs:
        for output, reference in zip(
            deploy(torch.from_numpy(image)), expected_outputs(checkpoint.model, spec, image), strict=True
        ):
            assert output.shape == reference.shape
            assert np.abs(output.numpy() - reference).max() <= 1e-4


@pytest.mark.parametrize(("width", "channels"), [(0.25, 64), (0.5, 64), (0.25, 128), (1.0, 32)])
def test_folding_holds_for_other_widths(width: float, channels: int) -> None:
    spec = Spec(96, 64)
    model = random_model(seed=1, width=width, channels=channels)
    image = np.random.default_rng(2).integers(0, 256, spec.input_shape, np.uint8)
    for output, reference in zip(
        Deploy(model, spec).eval()(torch.from_numpy(image)), expected_outputs(model, spec, image), strict=True
    ):
        assert np.abs(output.numpy() - reference).max() <= 1e-4 * max(1.0, np.abs(reference).max())


def test_folding_leaves_the_model_as_it_was_and_no_batch_norm_in_the_copy(spec: Spec) -> None:
    model = random_model(seed=3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    deploy = Deploy(model, spec)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not any(isinstance(module, ConvNorm | torch.nn.BatchNorm2d) for module in deploy.modules())


def test_outputs_have_the_shapes_of_the_contract(spec: Spec) -> None:
    outputs = Deploy(random_model(seed=4), spec).eval()(torch.zeros(spec.input_shape, dtype=torch.uint8))
    assert [tuple(output.shape) for output in outputs] == [output.shape for output in spec.outputs]
    assert len(spec.anchors) == 12_600 == sum(output.numel() for output in outputs[:3])
