"""The verbs that train: `train-mesh` and `train`."""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from retinaface_edge.runtime.io.atomic import write_whole

from .arguments import Verbs, add_verb, positive, size
from .exit_codes import GOOD


def train_mesh(options: argparse.Namespace) -> int:
    """`train-mesh`: train a dense branch for a checkpoint on photographs without labels."""
    import torch

    from retinaface_edge.export.checkpoints.demo import demo_checkpoint
    from retinaface_edge.export.checkpoints.source import read_checkpoint
    from retinaface_edge.export.models.mesh_branch import branch_file
    from retinaface_edge.export.stage_cache import default_folder
    from retinaface_edge.runtime.io.atomic import write_whole
    from retinaface_edge.training.mesh.fit import accuracy_text
    from retinaface_edge.training.mesh.run import learn_mesh

    from .progress import bar, say

    torch.set_num_threads(options.threads)
    checkpoint = read_checkpoint(options.checkpoint) if options.checkpoint else demo_checkpoint()
    say(f"checkpoint: {checkpoint.family}, sha256 {checkpoint.digest[:12]}")
    model, mesh, about = learn_mesh(
        checkpoint,
        options.images,
        options.teacher,
        cache=options.cache or default_folder().parent,
        canvases=options.canvases,
        epochs=options.epochs,
        seed=options.seed,
        threads=options.threads,
        decoder=options.decoder,
        stage=say,
        progress=bar,
    )
    print(accuracy_text(about["validation"]))
    content = branch_file(model, mesh, about, options.decoder)
    write_whole(options.output, content)
    print(f"wrote {options.output}, {len(content):,} bytes; build with --mesh {options.output}")
    return GOOD


def add_train(verbs: Verbs) -> None:
    """Add the verbs and their arguments."""
    parser = add_verb(
        verbs,
        "train-mesh",
        train_mesh,
        "add the dense 3D face to a checkpoint",
        "train-mesh --checkpoint model.pth --images photos --teacher face_landmark.tflite --output mesh.safetensors",
        extra="build",
    )
    parser.add_argument("--checkpoint", type=Path, help="a .pth or .onnx RetinaFace (default: the demo's weights)")
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
    parser.add_argument("--seed", type=int, default=0, help="seed of augmentation and training (default: %(default)s)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="cache of intermediate results (0.4 GB)")

    parser = add_verb(
        verbs,
        "train",
        train,
        "fine-tune a detector on labels with five landmarks",
        "train --labels label.txt --output model.pth --steps 2000",
        extra="build",
    )
    parser.add_argument("--checkpoint", type=Path, help="a .pth or .onnx RetinaFace (default: the demo's weights)")
    parser.add_argument("--labels", type=Path, required=True, metavar="FILE", help="WIDER FACE labels with landmarks")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="where to write the weights (.pth)")
    parser.add_argument("--size", type=size, default=(640, 480), help="network input (default: 640x480)")
    parser.add_argument("--steps", type=positive, default=1000, help="default: %(default)s")
    parser.add_argument("--batch", type=positive, default=4, help="pictures per step (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=1e-4, help="learning rate (default: %(default)s)")
    parser.add_argument(
        "--every", type=positive, default=10, help="print the loss every so many steps (default: %(default)s)"
    )
    parser.add_argument("--threads", type=positive, default=2, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random choices (default: %(default)s)")
    parser.add_argument(
        "--no-augmentation", action="store_true", help="use pictures unchanged, for instance to test overfitting"
    )


def train(options: argparse.Namespace) -> int:
    """`train`: fine-tune a detector on labels with five landmarks."""
    import torch

    from retinaface_edge.export.checkpoints.demo import demo_checkpoint
    from retinaface_edge.export.checkpoints.source import read_checkpoint
    from retinaface_edge.runtime.spec import Spec
    from retinaface_edge.training.finetune import train as fine_tune
    from retinaface_edge.training.label_files import read_labels
    from retinaface_edge.training.losses import Losses

    from .progress import bar, say

    torch.set_num_threads(options.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    checkpoint = read_checkpoint(options.checkpoint) if options.checkpoint else demo_checkpoint()
    pictures = read_labels(options.labels)
    faces = sum(len(picture.boxes) for picture in pictures)
    say(f"{faces:,} faces in {len(pictures):,} pictures, on {device}")
    last: list[Losses] = []

    def report(step: int, losses: Losses) -> None:
        last[:] = [losses]
        if step % options.every == 0:
            terms = ", ".join(f"{name} {float(value):.4f}" for name, value in losses._asdict().items())
            say(f"step {step}: {terms}")

    options.output.parent.mkdir(parents=True, exist_ok=True)
    model = fine_tune(
        checkpoint,
        pictures,
        Spec(*options.size),
        options.output.with_suffix(".state"),
        steps=options.steps,
        batch=options.batch,
        rate=options.rate,
        seed=options.seed,
        device=device,
        augment=not options.no_augmentation,
        progress=bar,
        report=report,
    )
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    write_whole(options.output, buffer.getvalue())
    if last:
        print(f"loss {float(last[0].total):.4f} after {options.steps} steps")
    print(f"wrote {options.output}; build with --checkpoint {options.output}")
    return GOOD
