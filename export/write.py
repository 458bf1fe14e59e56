"""Writing a bundle: whole, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..runtime.bundle import FORMAT_VERSION, MANIFEST, Artifact, Bundle, describe, serialise
from ..runtime.errors import BundleError
from ..runtime.spec import Spec


@dataclass(frozen=True)
class Content:
    """What a bundle will hold: `files` maps paths inside it to bytes, `artifacts` (backend, precision) to paths.

    `meshes` are the artifacts of the dense branch; without one, the manifest does not speak of it.
    """

    spec: Spec
    files: Mapping[str, bytes]
    artifacts: Mapping[tuple[str, str], Sequence[str]]
    provenance: Mapping[str, Any]
    meshes: Mapping[tuple[str, str], Sequence[str]] = field(default_factory=dict)


def check_output(output: Path, replace: bool) -> None:
    """Raise `BundleError` now if `output` could not be written later: it exists, or its parent takes no files.

    With `replace`, an existing bundle or empty folder is accepted; anything else never is.
    """
    if os.path.lexists(output):
        empty = output.is_dir() and not any(output.iterdir())
        if not empty and not replace:
            raise BundleError(f"{output} exists already; give another --output, or --force to replace the bundle there")
        if not empty and not (output.is_dir() and (output / MANIFEST).is_file()):
            raise BundleError(f"{output} exists and is not a bundle, so it is not replaced; give another --output")
    parent = output.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        raise BundleError(f"{parent} cannot be written ({error.strerror}); give another --output") from error


def write_bundle(content: Content, output: Path) -> Bundle:
    """Write into a temporary folder beside `output`, check what was written, and rename it.

    What was at `output` (see `check_output`) is replaced. Raises `BundleError` when the disk refuses.
    """
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.absolute().parent))
    except OSError as error:
        raise BundleError(f"{output} cannot be written ({error.strerror})") from error
    try:
        fresh = scratch / "new"
        for path, data in {**content.files, MANIFEST: _manifest(content)}.items():
            file = fresh / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        Bundle.load(fresh).verify()
        if os.path.lexists(output):
            output.rename(scratch / "old")
        fresh.rename(output)
    except OSError as error:
        raise BundleError(f"{output} cannot be written ({error.strerror}); nothing was left behind") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return Bundle.load(output)


def _manifest(content: Content) -> bytes:
    files = {path: describe(path, data) for path, data in content.files.items()}
    artifacts, meshes = (
        [
            asdict(Artifact(backend, precision, tuple(files[path] for path in paths)))
            for (backend, precision), paths in group.items()
        ]
        for group in (content.artifacts, content.meshes)
    )
    return serialise(
        {
            "format_version": FORMAT_VERSION,
            "spec": content.spec.to_json(),
            "artifacts": artifacts,
            **({"meshes": meshes} if meshes else {}),
            "files": [asdict(files[path]) for path in sorted(files)],
            "provenance": content.provenance,
        }
    )
