"""The dense branch: from the description of a face to its 468 vertices, as a model and as a file.

An encoder makes a latent code of the description; a decoder makes vertices of the code. The decoder is a linear map
(`linear`) or the paper's spectral graph convolutions (`graph`, RetinaFace, section 3.2). Both give vertices relative to
the box, as `runtime.mesh.place` takes them.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from retinaface_edge.runtime.errors import RetinaFaceEdgeError
from retinaface_edge.runtime.io.arrays import unpacked
from retinaface_edge.runtime.io.untrusted import parse_json, read_file
from retinaface_edge.runtime.spec import Mesh

from .mesh_graph import DeployGraphBranch, GraphBranch
from .mesh_linear import DeployBranch, LinearBranch

META = "branch"
NPZ_META = "branch.json"
MOST, LARGEST_BYTES = 1 << 12, 64 << 20
"""Most channels and bytes of a branch; more is an attempt on the memory of who reads it."""
DECODERS = (LinearBranch.kind, GraphBranch.kind)


class BranchError(RetinaFaceEdgeError):
    """A dense branch that cannot be read, or that belongs to another detector."""


@dataclass(frozen=True, eq=False)
class Branch:
    """A trained branch: its model, the contract it was trained under, and where it comes from."""

    model: nn.Module
    mesh: Mesh
    about: Mapping[str, Any]
    digest: str

    def check(self, checkpoint: str) -> None:
        """Raise `BranchError` unless the branch was trained on the features of the checkpoint of that SHA-256."""
        if self.about.get("checkpoint") != checkpoint:
            raise BranchError(
                f"the dense branch was trained on the checkpoint {str(self.about.get('checkpoint'))[:12]}, this one is "
                f"{checkpoint[:12]}; train it again: retinaface-edge train-mesh --checkpoint FILE"
            )


def new_branch(kind: str, mesh: Mesh) -> LinearBranch | GraphBranch:
    """An untrained branch whose decoder is of that kind. Raises `ValueError` for a kind outside `DECODERS`."""
    if kind == GraphBranch.kind:
        return GraphBranch(mesh.inputs)
    if kind != LinearBranch.kind:
        raise ValueError(f"its decoder is {kind!r}; known decoders: {', '.join(DECODERS)}")
    return LinearBranch(mesh.inputs, mesh.vertices)


def deployed(branch: nn.Module) -> nn.Module:
    """The branch under the bundle's contract, to be exported."""
    if isinstance(branch, GraphBranch):
        return DeployGraphBranch(branch)
    assert isinstance(branch, LinearBranch)
    return DeployBranch(branch)


def branch_file(model: nn.Module, mesh: Mesh, about: Mapping[str, Any], kind: str = LinearBranch.kind) -> bytes:
    """The bytes of a branch's file, safetensors of float16 weights: the same bytes for the same branch."""
    from safetensors.numpy import save

    meta = {"kind": kind, "channels": mesh.channels, "vertices": mesh.vertices, "about": dict(about)}
    arrays = {
        name: np.ascontiguousarray(value.detach().cpu().numpy().astype(np.float16))
        for name, value in sorted(model.state_dict().items())
    }
    return save(arrays, {META: json.dumps(meta, sort_keys=True)})


def read_branch(path: Path) -> Branch:
    """Read what `branch_file` gave, or the `.npz` of earlier versions. Raises `BranchError` for anything else."""
    try:
        content = read_file(path, LARGEST_BYTES)
        meta, arrays = (_read_npz if zipfile.is_zipfile(io.BytesIO(content)) else _read_safetensors)(content)
        mesh = Mesh(channels=int(meta["channels"]), vertices=int(meta["vertices"]))
        if mesh.channels > MOST:
            raise ValueError(f"it has more than {MOST} channels")
        model = new_branch(meta["kind"], mesh)
        state = {name: torch.from_numpy(np.asarray(arrays[name], np.float32)) for name in model.state_dict()}
        if not all(torch.isfinite(value).all() for value in state.values()):
            raise ValueError("a weight is not finite")
        model.load_state_dict(state)
        about = dict(meta["about"])
    except OSError as error:
        raise BranchError(f"{path} cannot be read ({error.strerror}); give a file that train-mesh wrote") from error
    except Exception as error:  # what readers of archives, arrays and JSON raise is as varied as what a file can hold
        said = " ".join(str(error).split())[:80]
        raise BranchError(f"{path} is not a dense branch ({said}); give a file that train-mesh wrote") from error
    return Branch(model.eval(), mesh, about, hashlib.sha256(content).hexdigest())


def _read_safetensors(content: bytes) -> tuple[dict[str, Any], Mapping[str, NDArray[Any]]]:
    from safetensors.numpy import load

    arrays = load(content)  # checks the header, and that its offsets lie inside the file
    header = parse_json(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return parse_json(header["__metadata__"][META].encode()), arrays


def _read_npz(content: bytes) -> tuple[dict[str, Any], Mapping[str, NDArray[Any]]]:
    arrays = unpacked(content, LARGEST_BYTES)
    return parse_json(bytes(arrays[NPZ_META])), arrays
