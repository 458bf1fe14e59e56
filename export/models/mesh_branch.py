"""The dense branch in PyTorch: from the description of a face to its 468 vertices, and its file.

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
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from retinaface_edge.runtime.errors import RetinaFaceEdgeError
from retinaface_edge.runtime.spec import Mesh

from .retinaface import activate

if TYPE_CHECKING:
    from .mesh_graph import GraphBranch

SLOPE = 0.1
WIDTHS = (240, 128)
LATENT = 40
LEAST_DEVIATION = 1e-3
META = "branch.json"
MOST, LARGEST_BYTES = 1 << 12, 64 << 20
"""Of what a branch has; more is an attempt on the memory of who reads it."""
DECODERS = ("linear", "graph")


class BranchError(RetinaFaceEdgeError):
    """A dense branch that cannot be read, or that belongs to another detector."""


class Encoder(nn.Module):
    """Description (n, inputs), standardised, to a latent code (n, latent)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, inputs: int, latent: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("deviation", torch.ones(inputs))
        sizes = (inputs, *WIDTHS, latent)
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, described: Tensor) -> Tensor:
        x = (described - self.mean) / self.deviation
        for layer in self.layers:
            x = activate(layer(x), SLOPE)
        return x


class LinearBranch(nn.Module):
    """The small decoder: vertices are a linear function of the code, as in a morphable model."""

    kind = "linear"

    def __init__(self, inputs: int, vertices: int = Mesh.vertices) -> None:
        super().__init__()
        self.encoder = Encoder(inputs, LATENT)
        self.decoder = nn.Linear(LATENT, 3 * vertices)

    def forward(self, described: Tensor) -> Tensor:
        """Vertices (n, 468, 3) relative to the box, of descriptions (n, inputs)."""
        flat: Tensor = self.decoder(self.encoder(described))
        return flat.reshape(len(flat), -1, 3)


class DeployBranch(nn.Module):
    """A linear branch under the bundle's contract: `feature` (1, 1, n, inputs) in, `vertices` (1, 1, n, 1404) out.

    A linear map of each column is a 1×1 convolution, so that the compiler needs no operation besides the detector's.
    Standardisation is folded into the first.
    """

    def __init__(self, branch: LinearBranch) -> None:
        super().__init__()
        layers = [*encoder_convolutions(branch.encoder), _convolution(branch.decoder)]
        self.layers = nn.ModuleList(layers).requires_grad_(False)

    def forward(self, feature: Tensor) -> tuple[Tensor, ...]:
        x = feature.permute(0, 3, 1, 2)
        *hidden, last = self.layers
        for layer in hidden:
            x = activate(layer(x), SLOPE)
        return (last(x).permute(0, 2, 3, 1),)


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
    from .mesh_graph import GraphBranch

    if kind == GraphBranch.kind:
        return GraphBranch(mesh.inputs)
    if kind != LinearBranch.kind:
        raise ValueError(f"its decoder is {kind!r}, known are {', '.join(DECODERS)}")
    return LinearBranch(mesh.inputs, mesh.vertices)


def deployed(branch: nn.Module) -> nn.Module:
    """The branch under the bundle's contract, to be exported."""
    from .mesh_graph import DeployGraphBranch, GraphBranch

    if isinstance(branch, GraphBranch):
        return DeployGraphBranch(branch)
    assert isinstance(branch, LinearBranch)
    return DeployBranch(branch)


def branch_file(model: nn.Module, mesh: Mesh, about: Mapping[str, Any], kind: str = "linear") -> bytes:
    """The bytes of a branch's file, an `.npz` of float16 weights: the same bytes for the same branch."""
    meta = {"kind": kind, "channels": mesh.channels, "vertices": mesh.vertices, "about": dict(about)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entries = {META: (json.dumps(meta, indent=2, sort_keys=True) + "\n").encode()}
        for name, value in sorted(model.state_dict().items()):
            array = io.BytesIO()
            np.save(array, value.detach().cpu().numpy().astype(np.float16))
            entries[f"{name}.npy"] = array.getvalue()
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def read_branch(path: Path) -> Branch:
    """Read what `branch_file` gave. Raises `BranchError` when the file is something else."""
    try:
        content = path.read_bytes()
        if not zipfile.is_zipfile(io.BytesIO(content)):  # NumPy would offer to unpickle it
            raise ValueError("no archive")
        if sum(entry.file_size for entry in zipfile.ZipFile(io.BytesIO(content)).infolist()) > LARGEST_BYTES:
            raise ValueError(f"it unpacks to more than {LARGEST_BYTES:,} bytes")
        archive = np.load(io.BytesIO(content), allow_pickle=False)
        meta = json.loads(bytes(archive[META]).decode())
        mesh = Mesh(channels=int(meta["channels"]), vertices=int(meta["vertices"]))
        if mesh.channels > MOST:
            raise ValueError(f"it has more than {MOST} channels")
        model = new_branch(meta["kind"], mesh)
        state = {name: torch.from_numpy(np.asarray(archive[name], np.float32)) for name in model.state_dict()}
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


def encoder_convolutions(encoder: Encoder) -> nn.ModuleList:
    """The encoder's layers as 1×1 convolutions, standardisation folded into the first."""
    first, *rest = (_convolution(layer) for layer in encoder.layers)
    assert first.bias is not None
    weight = first.weight.data[:, :, 0, 0].double() / encoder.deviation.double()
    first.bias.data = (first.bias.data.double() - weight @ encoder.mean.double()).float()
    first.weight.data = weight.float()[:, :, None, None]
    return nn.ModuleList([first, *rest])


def _convolution(layer: nn.Module) -> nn.Conv2d:
    assert isinstance(layer, nn.Linear)
    conv = nn.Conv2d(layer.in_features, layer.out_features, 1)
    conv.weight.data = layer.weight.detach()[:, :, None, None].clone()
    assert conv.bias is not None
    conv.bias.data = layer.bias.detach().clone()
    return conv
