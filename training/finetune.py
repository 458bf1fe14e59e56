"""`train`: fine-tune a detector with the multi-task loss. A run that was killed goes on where it stopped."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinaface_edge.export.checkpoints.checkpoint import Checkpoint
from retinaface_edge.export.models.retinaface import RetinaFace
from retinaface_edge.runtime.io.atomic import write_whole
from retinaface_edge.runtime.io.images import read_image
from retinaface_edge.runtime.ops.letterbox import letterbox, letterbox_for
from retinaface_edge.runtime.spec import Spec

from .label_files import Annotated
from .losses import Losses, Targets, match, multi_task
from .mesh.teacher_labels import TrainingError

MIRROR = [1, 0, 2, 4, 3]
"""Landmarks of a mirrored face: eyes and corners of the mouth change sides."""
WEIGHT_DECAY, CLIP = 5e-4, 10.0


def train(
    checkpoint: Checkpoint,
    pictures: Sequence[Annotated],
    spec: Spec,
    state: Path,
    *,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    device: str,
    augment: bool = True,
    save_every: int = 50,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
    report: Callable[[int, Losses], None] = lambda step, losses: None,
) -> RetinaFace:
    """Fine-tune `checkpoint` on `pictures` for `steps` steps; gives the model, in evaluation mode, on the CPU.

    Batch norm keeps its statistics: batches are small. Every step's pictures and augmentation depend on `seed` and the
    step alone, and the whole state is written to `state` now and then, so a run that goes on there ends with the same
    weights as one that was never stopped. Raises `TrainingError` when `state` is of another run.
    """
    # What decides the run, besides how long it is: a state may be taken further.
    run = hashlib.sha256(
        repr((checkpoint.digest, [p.path.name for p in pictures], spec, batch, rate, seed, augment)).encode()
    ).hexdigest()
    model = checkpoint.model.to(device)
    torch.manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
    first = _resume(state, run, model, optimiser, device)
    anchors = torch.from_numpy(spec.anchors).float()
    model.eval()  # of all that differs in training, only batch norm is here
    for step in progress(range(first, steps)):
        random = np.random.default_rng((seed, step))
        chosen = random.choice(len(pictures), batch, replace=batch > len(pictures))
        prepared = [_prepared(pictures[index], spec, anchors, random, augment) for index in chosen]
        images = torch.from_numpy(np.stack([image for image, _ in prepared])).to(device)
        centred = images.float() - torch.tensor(spec.mean, dtype=torch.float32, device=device)
        heads = zip(model(centred.permute(0, 3, 1, 2)), (2, 4, 10), strict=True)
        scores, boxes, landmarks = (_flat(head, channels) for head, channels in heads)
        each = [
            multi_task(scores[i], boxes[i], landmarks[i], Targets(*(t.to(device) for t in targets)))
            for i, (_, targets) in enumerate(prepared)
        ]
        losses = Losses(*(torch.stack(term).mean() for term in zip(*each, strict=True)))
        optimiser.zero_grad()
        losses.total.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimiser.step()
        report(step, Losses(*(term.detach() for term in losses)))
        if (step + 1) % save_every == 0 or step + 1 == steps:
            _save(state, run, step + 1, model, optimiser)
    return model.cpu().eval()


def _prepared(
    picture: Annotated, spec: Spec, anchors: Tensor, random: np.random.Generator, augment: bool
) -> tuple[NDArray[np.uint8], Targets]:
    """The letterboxed picture (H, W, 3), a crop of it and mirrored at random, and its targets."""
    frame, boxes, landmarks, has = read_image(picture.path), picture.boxes, picture.landmarks, picture.has_landmark
    if augment:
        side = random.uniform(0.4, 1.0)
        size = np.maximum(np.rint(side * np.array(frame.shape[1::-1])).astype(int), 2)
        x, y = (int(random.integers(0, total - part + 1)) for total, part in zip(frame.shape[1::-1], size, strict=True))
        frame = frame[y : y + size[1], x : x + size[0]]
        boxes, landmarks = boxes - (x, y, x, y), landmarks - (x, y)
        middle = 0.5 * (boxes[:, :2] + boxes[:, 2:])
        kept = np.all((middle >= 0.0) & (middle < size), axis=1)
        boxes, landmarks, has = boxes[kept], landmarks[kept], has[kept]
        gain = random.uniform(0.7, 1.3)
        frame = np.clip(np.rint(frame * gain), 0, 255).astype(np.uint8)
        if random.random() < 0.5:
            width = frame.shape[1]
            frame = frame[:, ::-1]
            boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], axis=1)
            landmarks = (landmarks * (-1.0, 1.0) + (width, 0.0))[:, MIRROR]
    placement = letterbox_for(spec, frame.shape[1], frame.shape[0])
    image = np.empty(spec.input_shape, np.uint8)
    letterbox(spec, placement, frame, image)
    scale = np.array([placement.scale_x, placement.scale_y])
    targets = match(
        anchors,
        torch.from_numpy(boxes / np.tile(scale, 2)).float(),
        torch.from_numpy(landmarks / scale).float(),
        torch.from_numpy(has),
        spec.variances,
    )
    return image[0], targets


def _flat(levels: Sequence[Tensor], channels: int) -> Tensor:
    """A head's levels (n, anchors·channels, h, w) as (n, all anchors, channels), in the order of `spec.anchors`."""
    return torch.cat([level.permute(0, 2, 3, 1).reshape(len(level), -1, channels) for level in levels], dim=1)


def _save(state: Path, run: str, step: int, model: RetinaFace, optimiser: torch.optim.Optimizer) -> None:
    buffer = io.BytesIO()
    torch.save({"run": run, "step": step, "model": model.state_dict(), "optimiser": optimiser.state_dict()}, buffer)
    write_whole(state, buffer.getvalue())


def _resume(state: Path, run: str, model: RetinaFace, optimiser: torch.optim.Optimizer, device: str) -> int:
    """The step to go on with: 0 without a state."""
    if not state.exists():
        return 0
    try:
        kept = torch.load(state, map_location=device, weights_only=True)
        same = kept["run"] == run
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
