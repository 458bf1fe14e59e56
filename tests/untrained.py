"""Untrained models, for tests to which any weights will do."""

from __future__ import annotations

import torch

from retinaface_edge.export.models.retinaface import RetinaFace


def random_model(seed: int, width: float = 0.25, channels: int = 64) -> RetinaFace:
    """Untrained, with batch norm statistics as a trained model has them: not zero, not one."""
    torch.manual_seed(seed)
    model = RetinaFace(width, channels).eval()
    for name, value in model.state_dict().items():
        if name.endswith(("running_var", "norm.weight")):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(std=0.2)
    return model
