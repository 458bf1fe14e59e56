"""`train`: train a detector with the multi-task loss. A run that was killed resumes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from retinaface_edge.export.models.retinaface import RetinaFace
from retinaface_edge.runtime.io.atomic import write_atomic
from retinaface_edge.runtime.io.images import read_image
from retinaface_edge.runtime.io.untrusted import read_file
from retinaface_edge.runtime.ops.letterbox import letterbox, letterbox_for
from retinaface_edge.runtime.spec import Colour, Spec

from .errors import TrainingError
from .label_files import Annotated
from .losses import Losses, Targets, match, multi_task
from .request import Reporter, Silent, TrainRequest

STATE_BYTES = 1 << 32
MIRROR = [1, 0, 2, 4, 3]
"""Landmarks of a mirrored face: eyes and corners of the mouth change sides."""
WEIGHT_DECAY, CLIP = 5e-4, 10.0


def train(request: TrainRequest, reporter: Reporter | None = None) -> RetinaFace:
    """Train as `request` says; gives the model, in evaluation mode, on the CPU.

    Every step's pictures and augmentation depend on the seed and the step alone, and the whole state is written now and
    then, so a run that goes on there ends with the same weights as one that was never stopped. The checkpoint's model
    itself is trained. Raises `TrainingError` when the state is of another run, and when the loss is no longer finite.
    """
    reporter = reporter or Silent()
    spec, device = request.spec, request.device
    model = request.checkpoint.model.to(device)
    torch.manual_seed(request.seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=request.rate, weight_decay=WEIGHT_DECAY)
    first = _resume(request, model, optimiser)
    anchors = torch.from_numpy(spec.anchors).float()
    model.eval()
    for step in reporter.progress(range(first, request.steps)):
        # Of all that differs between training and evaluation, these models have batch norm only. It ends with fixed
        # statistics, so that the network is trained as it will be used.
        _set_batch_norm(model, step < request.batch_norm_steps)
        losses = _losses(request, spec, anchors, step)
        optimiser.zero_grad()
        losses.total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        reporter.losses(step, Losses(*(term.detach() for term in losses)))
        if (step + 1) % request.save_every == 0 or step + 1 == request.steps:
            _save(request, step + 1, model, optimiser)
    return model.cpu().eval()


def _losses(request: TrainRequest, spec: Spec, anchors: Tensor, step: int) -> Losses:
    """The mean losses over the pictures of one step."""
    random = np.random.default_rng((request.seed, step))
    pictures, batch = request.pictures, request.batch
    chosen = random.choice(len(pictures), batch, replace=batch > len(pictures))
    prepared = [_prepared(pictures[index], spec, anchors, random, request.augment) for index in chosen]
    images = torch.from_numpy(np.stack([image for image, _ in prepared])).to(request.device)
    predictions = request.checkpoint.model(normalised(images, spec))
    heads = zip(predictions, (2, 4, 2 * spec.landmarks), strict=True)
    scores, boxes, landmarks = (_flat(head, values) for head, values in heads)
    each = [
        multi_task(scores[i], boxes[i], landmarks[i], Targets(*(t.to(request.device) for t in targets)))
        for i, (_, targets) in enumerate(prepared)
    ]
    losses = Losses(*(torch.stack(term).mean() for term in zip(*each, strict=True)))
    if not torch.isfinite(losses.total):
        raise TrainingError(f"the loss is no longer finite at step {step}; give a smaller --rate")
    return losses


def normalised(images: Tensor, spec: Spec) -> Tensor:
    """Images (n, H, W, 3) uint8 BGR as the detector reads them: (n, 3, H, W) float32, in its order of colours."""
    pixels = images.flip(3) if spec.colour is Colour.RGB else images
    mean, std = (torch.tensor(value, dtype=torch.float32, device=images.device) for value in (spec.mean, spec.std))
    return ((pixels.float() - mean) / std).permute(0, 3, 1, 2)


def _set_batch_norm(model: nn.Module, of_batch: bool) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train(of_batch)


def _prepared(
    picture: Annotated, spec: Spec, anchors: Tensor, random: np.random.Generator, augment: bool
) -> tuple[NDArray[np.uint8], Targets]:
    """The letterboxed picture (H, W, 3), a crop of it and mirrored at random, and its targets."""
    frame, boxes, landmarks, visible = read_image(picture.path), picture.boxes, picture.landmarks, picture.visible
    if augment:
        side = random.uniform(0.4, 1.0)
        size = np.maximum(np.rint(side * np.array(frame.shape[1::-1])).astype(int), 2)
        x, y = (int(random.integers(0, total - part + 1)) for total, part in zip(frame.shape[1::-1], size, strict=True))
        frame = frame[y : y + size[1], x : x + size[0]]
        boxes, landmarks = boxes - (x, y, x, y), landmarks - (x, y)
        middle = 0.5 * (boxes[:, :2] + boxes[:, 2:])
        kept = np.all((middle >= 0.0) & (middle < size), axis=1)
        boxes, landmarks, visible = boxes[kept], landmarks[kept], visible[kept]
        gain = random.uniform(0.7, 1.3)
        frame = np.clip(np.rint(frame * gain), 0, 255).astype(np.uint8)
        if random.random() < 0.5:
            width = frame.shape[1]
            frame = frame[:, ::-1]
            boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
            landmarks = (landmarks * (-1.0, 1.0) + (width, 0.0))[:, MIRROR]
            visible = visible[:, MIRROR]
    placement = letterbox_for(spec, frame.shape[1], frame.shape[0])
    image = np.empty(spec.input_shape, np.uint8)
    letterbox(spec, placement, frame, image)
    scale = np.array([placement.scale_x, placement.scale_y])
    targets = match(
        anchors,
        torch.from_numpy(boxes / np.tile(scale, 2)).float(),
        torch.from_numpy(landmarks / scale).float(),
        torch.from_numpy(visible),
        spec.variances,
    )
    return image[0], targets


def _flat(levels: Sequence[Tensor], values: int) -> Tensor:
    """A head's levels (n, anchors·values, h, w) as (n, all anchors, values), in the order of `spec.anchors`."""
    return torch.cat([level.permute(0, 2, 3, 1).reshape(len(level), -1, values) for level in levels], dim=1)


def _run_key(request: TrainRequest) -> str:
    """What decides the run, besides how long it is: a state may be taken further."""
    names = [picture.path.name for picture in request.pictures]
    settings = (request.batch, request.rate, request.seed, request.augment, request.batch_norm_steps)
    return hashlib.sha256(repr((request.checkpoint.digest, names, request.spec, settings)).encode()).hexdigest()


def _save(request: TrainRequest, step: int, model: RetinaFace, optimiser: torch.optim.Optimizer) -> None:
    buffer = io.BytesIO()
    state = {"run": _run_key(request), "step": step, "model": model.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save(state, buffer)
    write_atomic(request.state, buffer.getvalue())


def _resume(request: TrainRequest, model: RetinaFace, optimiser: torch.optim.Optimizer) -> int:
    """The step to go on with: 0 without a state."""
    state = request.state
    if not state.exists():
        return 0
    try:
        kept = torch.load(io.BytesIO(read_file(state, STATE_BYTES)), map_location=request.device, weights_only=True)
        same = kept["run"] == _run_key(request)
    except Exception as error:  # torch.load raises whatever its many readers do
        raise TrainingError(f"{state} is not a state of a training run; remove it, or give another --output") from error
    if not same:
        raise TrainingError(
            f"{state} is the state of a run with another checkpoint, pictures or settings; "
            "remove it, or give another --output"
        )
    model.load_state_dict(kept["model"])
    optimiser.load_state_dict(kept["optimiser"])
    return int(kept["step"])
