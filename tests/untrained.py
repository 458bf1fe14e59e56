"""Untrained models, with batch norm statistics as a trained model has them: not zero, not one."""

from __future__ import annotations

import torch

from retinaface_edge.export.models.backbones.mobilenet_v1 import mobilenet_v1
from retinaface_edge.export.models.retinaface import Architecture, RetinaFace


def random_model(seed: int, width: float = 0.25, channels: int = 64) -> RetinaFace:
    """An untrained MobileNetV1."""
    return random_detector(seed, Architecture(mobilenet_v1(width), channels))


def random_detector(seed: int, shape: Architecture) -> RetinaFace:
    """An untrained detector of any shape."""
    torch.manual_seed(seed)
    model = RetinaFace(shape).eval()
    for name, value in model.state_dict().items():
        if name.endswith(("running_var", "norm.weight")):
            value.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            value.normal_(std=0.2)
    return model
