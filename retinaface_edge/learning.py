"""The verbs that train: `train-mesh` and `train`. The work is done in `training`."""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .runtime.errors import BackendError

GOOD = 0

Verb = Callable[[Any, str, str], argparse.ArgumentParser]


def train_mesh(options: argparse.Namespace) -> int:
    """`train-mesh`: a dense branch for a checkpoint, from photographs without labels."""
    try:
        import torch

        from .export.branch import branch_file
        from .export.checkpoints import read_checkpoint
        from .export.demo import demo_checkpoint
        from .training.learn_mesh import learn_mesh
        from .training.mesh import accuracy_text
    except ImportError as error:
        raise BackendError(f"training needs {error.name}; run: pip install 'retinaface-edge[build]'") from error
    from .calibration.cache import default_folder
    from .progress import bar, say

    torch.set_num_threads(options.threads)
    checkpoint = read_checkpoint(options.checkpoint) if options.checkpoint else demo_checkpoint()
    say(f"checkpoint: {checkpoint.family}, sha256 {checkpoint.digest[:12]}")
    model, mesh, about = learn_mesh(
        checkpoint,
        options.images,
        options.teacher,
        cache=options.cache or default_folder(),
        canvases=options.canvases,
        epochs=options.epochs,
        seed=options.seed,
        threads=options.threads,
        stage=say,
        progress=bar,
    )
    print(accuracy_text(about["validation"]))
    content = branch_file(model, mesh, about)
    _write_whole(options.output, content)
    print(f"wrote {options.output}, {len(content):,} bytes; build with --mesh {options.output}")
    return GOOD


def add_verbs(verb: Verb, positive: Callable[[str], int]) -> None:
    """Add them to the command line; `verb` makes a parser for one of them."""
    parser = verb(
        train_mesh,
        "add the dense 3D face to a checkpoint",
        "train-mesh --checkpoint model.pth --images photos --teacher face_landmark.tflite --output mesh.npz",
    )
    parser.add_argument("--checkpoint", type=Path, help="a .pth or .onnx RetinaFace (default: the demo's weights)")
    parser.add_argument(
        "--images", type=Path, nargs="+", required=True, metavar="DIR", help="photographs with faces; no labels needed"
    )
    parser.add_argument(
        "--teacher", type=Path, required=True, metavar="FILE", help="MediaPipe's 468-point network (.tflite)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help="where to write the branch (.npz)")
    parser.add_argument("--canvases", type=positive, default=9000, help="augmented pictures (default: %(default)s)")
    parser.add_argument("--epochs", type=positive, default=40, help="passes over them (default: %(default)s)")
    parser.add_argument("--threads", type=positive, default=2, help="threads of each library (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of augmentation and training (default: %(default)s)")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="where the teacher's answers are kept")


def _write_whole(path: Path, content: bytes) -> None:
    """There whole, or not at all."""
    handle, scratch = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    except BaseException:
        os.unlink(scratch)
        raise
