"""Results of quantisation kept between builds: the same model, images and recipe are quantised once.

An entry is a folder named by its key, written beside it and renamed whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx

from .images import ImageSet
from .recipe import Recipe

LIBRARIES = ("retinaface-edge", "numpy", "onnx", "onnxruntime", "openvino", "ai-edge-litert")


def default_folder() -> Path:
    """The user's cache folder, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "retinaface-edge"


def cache_key(model: onnx.ModelProto, images: ImageSet, recipe: Recipe, options: Mapping[str, Any]) -> str:
    """Digest of all that the result depends on: model, images, recipe, further options, and the code's versions."""
    code = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(Path(__file__).parent.rglob("*.py"))))
    parts = {
        "model": hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest(),
        "images": images.digest,
        "recipe": recipe.to_json(),
        "options": dict(options),
        "versions": {name: version(name) for name in LIBRARIES},
        "code": code.hexdigest(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def read_entry(folder: Path, key: str) -> dict[str, bytes] | None:
    """The files of an entry by name; None when there is none, or it does not have the bytes that were stored."""
    try:
        digests = json.loads((folder / key / "digests.json").read_text(encoding="utf-8"))
        files = {name: (folder / key / name).read_bytes() for name in digests}
    except (OSError, ValueError):
        return None
    return files if all(hashlib.sha256(data).hexdigest() == digests[name] for name, data in files.items()) else None


def write_entry(folder: Path, key: str, files: Mapping[str, bytes]) -> None:
    """Store an entry. A cache that cannot be written is no error: the next build is slower, that is all."""
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=folder, prefix=".new-"))
        try:
            for name, data in {**files, "digests.json": json.dumps(digests).encode()}.items():
                (scratch / name).write_bytes(data)
            shutil.rmtree(folder / key, ignore_errors=True)
            scratch.rename(folder / key)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError:
        return
