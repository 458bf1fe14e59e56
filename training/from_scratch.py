"""Untrained detectors, to be trained from scratch, and the file of a trained one."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace

import torch

from retinaface_edge.export.checkpoints.checkpoint import Checkpoint
from retinaface_edge.export.checkpoints.families import OURS
from retinaface_edge.export.checkpoints.interpretation import Interpretation, Overrides, interpretation, saved_settings
from retinaface_edge.export.models.retinaface import RetinaFace, architecture


def untrained(backbone: str, seed: int, settings: Overrides | None = None) -> Checkpoint:
    """The published detector on that backbone, one of `export.models.backbones.NAMES`, with random weights.

    `settings` replace the usual anchors, normalisation and variances. Raises `BackboneError` for an unknown backbone.
    """
    shape = architecture(backbone)
    name = f"untrained {shape.backbone.title}"
    used = interpretation(shape, settings or Overrides(), name)
    torch.manual_seed(seed)
    model = RetinaFace(replace(shape, leaky=used.leaky)).eval()
    digest = hashlib.sha256(f"{name} {seed} {torch.__version__}".encode()).hexdigest()
    return Checkpoint(model, OURS, digest, used)


def checkpoint_bytes(model: RetinaFace, settings: Interpretation) -> bytes:
    """A `.pth` file with the weights of `model` and all that `read_checkpoint` needs to read it back."""
    buffer = io.BytesIO()
    shape = model.architecture
    torch.save({"state_dict": model.state_dict(), **saved_settings(settings, shape.upsampling)}, buffer)
    return buffer.getvalue()
