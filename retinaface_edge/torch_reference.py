"""A checkpoint run by PyTorch in its deploy form, the reference of `drift --checkpoint` before any export."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.benchmarks.inference.network_under_test import NetworkUnderTest, contract_text
from retinaface_edge.runtime.backends import Network
from retinaface_edge.runtime.errors import BackendError
from retinaface_edge.runtime.io.untrusted import read_file
from retinaface_edge.runtime.ops.postprocess import QuantParams, RawOutput
from retinaface_edge.runtime.spec import Spec

if TYPE_CHECKING:
    from retinaface_edge.export.models.deploy import Deploy

CHECKPOINT_BYTES = 1 << 30


def checkpoint_network(path: Path, spec: Spec) -> NetworkUnderTest:
    """The checkpoint as something to measure. It travels as bytes, so another machine need not have the file."""
    content = read_file(path, CHECKPOINT_BYTES)
    digest = hashlib.sha256(contract_text(spec).encode() + content).hexdigest()
    return NetworkUnderTest("checkpoint fp32", spec, (content,), digest, loader=partial(_load, path.suffix))


def _load(suffix: str, spec: Spec, files: Sequence[bytes], threads: int) -> Network:
    try:
        import torch

        from retinaface_edge.export.checkpoints.source import Overrides, read_checkpoint
        from retinaface_edge.export.models.deploy import Deploy
    except ImportError as error:
        raise BackendError(f"a checkpoint needs {error.name}; run: pip install 'retinaface-edge[build]'") from error
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"checkpoint{suffix}"
        path.write_bytes(files[0])
        model = read_checkpoint(path, Overrides(anchor_sizes=spec.anchor_sizes)).model
        return _PyTorch(spec, Deploy(model, spec).eval())


class _PyTorch:
    def __init__(self, spec: Spec, model: Deploy) -> None:
        self._model = model
        self.quant_params = (QuantParams(),) * len(spec.outputs)

    def run(self, image: NDArray[np.uint8]) -> Sequence[RawOutput]:
        import torch

        with torch.inference_mode():
            return [output.numpy() for output in self._model(torch.from_numpy(image))]
