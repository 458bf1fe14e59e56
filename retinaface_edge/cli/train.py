"""The verbs that train: `train-mesh` and `train`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_edge.runtime.io.atomic import write_atomic

from .arguments import LEAKY, Verbs, add_verb, anchors, overrides, positive, size, three_numbers, two_numbers
from .exit_codes import GOOD
from .progress import bar, say

if TYPE_CHECKING:
    from retinaface_edge.export.checkpoints.checkpoint import Checkpoint, TrainedDetector
    from retinaface_edge.training.losses import Losses

FROM_SCRATCH_RATE, FINE_TUNING_RATE = 1e-3, 1e-4
BATCH_NORM_SHARE = 0.6
"""Of the steps from scratch: in these, batch norm takes the statistics of the batch."""


class Terminal:
    """Reports a training run to the person who waits for it, the losses `every` so many steps."""

    def __init__(self, every: int = 1) -> None:
        self.last: Losses | None = None
        self._every = every

    def stage(self, text: str) -> None:
        """Print what begins, or was found."""
        say(text)

    def progress(self, items: Iterable[Any]) -> Iterable[Any]:
        """The items, with a progress bar."""
        return bar(items)

    def losses(self, step: int, losses: Losses) -> None:
        """Keep the losses, and print them now and then."""
        self.last = losses
        if step % self._every == 0:
            terms = ", ".join(f"{name} {float(value):.4f}" for name, value in losses._asdict().items())
            say(f"step {step}: {terms}")


def train_mesh(options: argparse.Namespace) -> int:
    """`train-mesh`: train a dense branch for a checkpoint on photographs without labels."""
    import torch

    from retinaface_edge.export.models.mesh_branch import branch_file
    from retinaface_edge.export.stage_cache import default_folder
    from retinaface_edge.training.mesh.fit import accuracy_text
    from retinaface_edge.training.mesh.run import learn_mesh
    from retinaface_edge.training.request import MeshTrainRequest

    torch.set_num_threads(options.threads)
    checkpoint = _any_detector(options)
    say(f"checkpoint: {checkpoint.title}, {checkpoint.family}, sha256 {checkpoint.digest[:12]}")
    request = MeshTrainRequest(
        checkpoint,
        options.images,
        options.teacher,
        canvases=options.canvases,
        epochs=options.epochs,
        seed=options.seed,
        threads=options.threads,
        decoder=options.decoder,
        cache=options.cache or default_folder().parent,
    )
    branch = learn_mesh(request, Terminal())
    print(accuracy_text(branch.about["validation"]))
    content = branch_file(branch.model, branch.mesh, branch.about, options.decoder)
    write_atomic(options.output, content)
    print(f"wrote {options.output}, {len(content):,} bytes; build with --mesh {options.output}")
    return GOOD


def train(options: argparse.Namespace) -> int:
    """`train`: train a detector on pictures with labelled faces."""
    import torch

    from retinaface_edge.training.finetune import train as train_detector
    from retinaface_edge.training.from_scratch import checkpoint_bytes
    from retinaface_edge.training.label_files import read_labels, summary
    from retinaface_edge.training.request import TrainRequest

    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pictures = read_labels(options.labels, options.images)
    say(summary(pictures))
    scratch = bool(options.backbone and not options.checkpoint)
    checkpoint = _checkpoint(options)
    say(f"{checkpoint.title} {'from scratch' if scratch else f'({checkpoint.family})'}, on {device}")
    batch_norm_steps = int(BATCH_NORM_SHARE * options.steps) if scratch else 0
    request = TrainRequest(
        checkpoint,
        pictures,
        options.size,
        options.output.with_suffix(".state"),
        steps=options.steps,
        batch=options.batch,
        rate=options.rate or (FROM_SCRATCH_RATE if scratch else FINE_TUNING_RATE),
        seed=options.seed,
        batch_norm_steps=batch_norm_steps if options.batch_norm_steps is None else options.batch_norm_steps,
        augment=not options.no_augmentation,
        device=device,
    )
    options.output.parent.mkdir(parents=True, exist_ok=True)
    reporter = Terminal(options.every)
    model = train_detector(request, reporter)
    write_atomic(options.output, checkpoint_bytes(model, checkpoint.interpretation))
    if reporter.last:
        print(f"loss {float(reporter.last.total):.4f} after {options.steps} steps")
    print(f"wrote {options.output}; build with --checkpoint {options.output}")
    return GOOD


def _any_detector(options: argparse.Namespace) -> TrainedDetector:
    """The detector whose features a dense branch reads: of any kind that a build takes, or the demo's."""
    from retinaface_edge.export.checkpoints.source import checkpoint_file

    if options.checkpoint:
        return checkpoint_file(options.checkpoint, overrides(options)).read()
    return _checkpoint(options)


def _checkpoint(options: argparse.Namespace) -> Checkpoint:
    """The RetinaFace to begin with: from a file, untrained, or the demo's."""
    from retinaface_edge.export.checkpoints.checkpoint import CheckpointError
    from retinaface_edge.export.checkpoints.demo import demo_checkpoint
    from retinaface_edge.export.checkpoints.source import read_checkpoint
    from retinaface_edge.training.from_scratch import untrained

    settings, backbone = overrides(options), getattr(options, "backbone", None)
    if options.checkpoint:
        checkpoint = read_checkpoint(options.checkpoint, settings)
        if backbone not in (None, checkpoint.backbone):
            raise CheckpointError(
                f"{options.checkpoint} has the backbone {checkpoint.backbone}, not {backbone}; leave out one of "
                "--checkpoint and --backbone"
            )
        return checkpoint
    if backbone:
        return untrained(backbone, options.seed, settings)
    if any(value is not None for value in vars(settings).values()):
        raise CheckpointError(
            "--anchors, --mean, --std, --colour, --variances and --activation need --checkpoint or --backbone"
        )
    return demo_checkpoint()


def add_train(verbs: Verbs) -> None:
    """Add the verbs and their arguments."""
    _add_train_mesh(verbs)
    _add_train_detector(verbs)


def _add_train_mesh(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "train-mesh",
        train_mesh,
        "add the dense 3D face to a checkpoint",
        "train-mesh --checkpoint model.pth --images photos --teacher face_landmark.tflite --output mesh.safetensors",
        extra="build",
    )
    _add_checkpoint(parser, "a RetinaFace, SCRFD or YuNet (default: the demo's)")
    parser.add_argument(
        "--images", type=Path, nargs="+", required=True, metavar="DIR", help="photographs with faces, without labels"
    )
    parser.add_argument(
        "--teacher", type=Path, required=True, metavar="FILE", help="MediaPipe's 468-point network (.tflite)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the branch to write (.safetensors)")
    parser.add_argument(
        "--decoder",
        choices=("linear", "graph"),
        default="linear",
        help="linear, or graph convolutions with the pixel loss (default: %(default)s)",
    )
    parser.add_argument("--canvases", type=positive, default=12000, help="augmented pictures (default: %(default)s)")
    parser.add_argument("--epochs", type=positive, default=40, help="passes over these (default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=2, help="threads of each library (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices (default: %(default)s)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="cache of intermediate results (0.4 GB)")


def _add_train_detector(verbs: Verbs) -> None:
    parser = add_verb(
        verbs,
        "train",
        train,
        "train a detector on pictures with labelled faces",
        "train --labels label.txt --output model.pth --steps 2000",
        extra="build",
    )
    _add_checkpoint(parser, "a RetinaFace, .pth, .safetensors or .onnx (default: the demo's)")
    parser.add_argument("--backbone", metavar="NAME", help="train from scratch: mobilenet_v1_0.25, resnet18, slim, ...")
    parser.add_argument("--labels", type=Path, required=True, metavar="FILE", help="boxes and landmarks, .txt or .json")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the pictures (default: that of --labels)")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="the weights to write (.pth)")
    parser.add_argument("--size", type=size, default=(640, 480), help="network input (default: 640x480)")
    parser.add_argument("--steps", type=positive, default=1000, help="default: %(default)s")
    parser.add_argument("--batch", type=positive, default=4, help="pictures per step (default: %(default)s)")
    parser.add_argument("--rate", type=_rate, help="learning rate (default: 1e-4, from scratch 1e-3)")
    parser.add_argument(
        "--batch-norm-steps",
        type=_not_negative,
        metavar="N",
        help="steps in which batch norm learns its statistics (default: 0, from scratch 60%% of --steps)",
    )
    parser.add_argument(
        "--every", type=positive, default=10, help="steps between printed losses (default: %(default)s)"
    )
    parser.add_argument("--threads", type=positive, default=2, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices (default: %(default)s)")
    parser.add_argument("--no-augmentation", action="store_true", help="use the pictures unchanged")


def _add_checkpoint(parser: argparse.ArgumentParser, which: str) -> None:
    """The checkpoint, and what its file may not tell."""
    parser.add_argument("--checkpoint", type=Path, help=which)
    parser.add_argument("--anchors", type=anchors, metavar="SIZES", help="its anchors, such as 10,20/32,64/128,256")
    parser.add_argument("--mean", type=three_numbers, metavar="M,M,M", help="its mean, in the order of --colour")
    parser.add_argument("--std", type=three_numbers, metavar="S,S,S", help="its deviation, in the same order")
    parser.add_argument("--colour", choices=("BGR", "RGB"), help="its order of colours")
    parser.add_argument("--variances", type=two_numbers, metavar="V,V", help="its variances (usually 0.1,0.2)")
    parser.add_argument("--activation", choices=LEAKY, help="its activation in place of LeakyReLU")


def _rate(text: str) -> float:
    """A learning rate: above 0, at most 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and at most 1")
    return value


def _not_negative(text: str) -> int:
    """An integer from 0 up."""
    return 0 if text == "0" else positive(text)
