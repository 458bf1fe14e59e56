"""Atomic writing of bundles, one build at a time.

The lock is `flock` by hand and not a library's: it is not opened through links, truncates nothing, and is removed.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retinaface_edge.runtime.artifact import ArtifactId
from retinaface_edge.runtime.bundle.bundle import MANIFEST, SIZES_VERSION, Artifact, Bundle, describe, serialise
from retinaface_edge.runtime.bundle.release import RELEASE, Release
from retinaface_edge.runtime.bundle.signature import SIGNATURE
from retinaface_edge.runtime.errors import BundleError
from retinaface_edge.runtime.io.atomic import keep_mode, remove_folder
from retinaface_edge.runtime.spec import Spec

Sign = Callable[[bytes], bytes]
"""Gives the signature of the manifest's bytes."""

RENAME_EXCHANGE = 2
AT_FDCWD = -100


@dataclass(frozen=True)
class MoreSize:
    """The detector for a further input size: its contract, its artifacts and their paths, and the cost of one frame."""

    spec: Spec
    artifacts: Mapping[ArtifactId, Sequence[str]]
    multiply_accumulates: int


@dataclass(frozen=True)
class Content:
    """What a bundle will hold: `files` maps paths inside it to bytes, `artifacts` compiled networks to their paths.

    `meshes` are the artifacts of the dense branch; without one, the manifest does not speak of it. `sizes` are the
    further input sizes.
    """

    spec: Spec
    files: Mapping[str, bytes]
    artifacts: Mapping[ArtifactId, Sequence[str]]
    provenance: Mapping[str, Any]
    meshes: Mapping[ArtifactId, Sequence[str]] = field(default_factory=dict)
    release: Release | None = None
    sizes: Sequence[MoreSize] = ()


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


@contextmanager
def reserved(output: Path, replace: bool) -> Iterator[None]:
    """Hold `output` for one build, checked by `check_output` and cleared of what a killed build left beside it.

    Raises `BundleError` as `check_output` does, and when another build holds it. The kernel lets go of the lock when
    its process ends, however it ends.
    """
    check_output(output, replace)
    lock = output.absolute().parent / f".{output.name}.lock"
    handle = _locked(lock, output)
    try:
        check_output(output, replace)  # another build may have finished in between
        for left in lock.parent.glob(f"{glob.escape(_scratch_prefix(output))}*"):
            remove_folder(left)
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def write_bundle(content: Content, output: Path, sign: Sign | None = None) -> Bundle:
    """Write into a temporary folder beside `output`, check what was written, and put it in place in one step.

    What was at `output` (see `check_output`) is replaced, unless it is this very bundle already. Raises `BundleError`
    when the disk refuses.
    """
    manifest = _manifest(content)
    files = {**content.files, MANIFEST: manifest}
    if sign is not None:
        files[SIGNATURE] = sign(manifest)
    if _is_there(files, output):
        return Bundle.load(output)
    try:
        scratch = Path(tempfile.mkdtemp(prefix=_scratch_prefix(output), dir=output.absolute().parent))
    except OSError as error:
        raise BundleError(f"{output} cannot be written ({error.strerror})") from error
    try:
        fresh = scratch / "new"
        for path, data in files.items():
            file = fresh / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            _flush(file)
        Bundle.load(fresh).verify()
        keep_mode(output, fresh)
        _put(fresh, output, scratch)
        _flush(output.absolute().parent)
    except OSError as error:
        raise BundleError(f"{output} cannot be written ({error.strerror}); no files were left behind") from error
    finally:
        remove_folder(scratch)
    return Bundle.load(output)


def _scratch_prefix(output: Path) -> str:
    return f".{output.name}.unfinished-"


def _locked(lock: Path, output: Path) -> int:
    """A handle of the locked file `lock`, which is no link, so that nobody can have another file locked.

    The loop is for a lock that its last holder removed while it was opened.
    """
    while True:
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise BundleError(f"{lock} is a link, and a lock must be a file; remove it") from error
            raise BundleError(f"{lock.parent} cannot be written ({error.strerror}); give another --output") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.exists(lock) and os.path.samestat(os.fstat(handle), os.lstat(lock)):
                return handle
        except FileNotFoundError:
            pass
        except BlockingIOError as error:
            os.close(handle)
            raise BundleError(
                f"another build is writing {output}; wait until it has finished, or give another --output"
            ) from error
        os.close(handle)


def _is_there(files: Mapping[str, bytes], output: Path) -> bool:
    try:
        present = {path.relative_to(output).as_posix() for path in output.rglob("*") if not path.is_dir()}
        return present == set(files) and all((output / path).read_bytes() == data for path, data in files.items())
    except OSError:
        return False


def _put(fresh: Path, output: Path, scratch: Path) -> None:
    """Make `fresh` the folder at `output` so that there is, at every instant, the old one whole or the new one."""
    if not os.path.lexists(output):
        fresh.rename(output)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    exchange = getattr(libc, "renameat2", None)
    if exchange and exchange(AT_FDCWD, os.fsencode(fresh), AT_FDCWD, os.fsencode(output), RENAME_EXCHANGE) == 0:
        return
    if exchange and ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    output.rename(scratch / "old")  # a file system that cannot exchange: for an instant there is none
    fresh.rename(output)


def _flush(path: Path) -> None:
    """Flush to the disk before the next step, in case the power fails."""
    handle = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems cannot flush a folder
            os.fsync(handle)
    finally:
        os.close(handle)


def _manifest(content: Content) -> bytes:
    files = {path: describe(path, data) for path, data in content.files.items()}

    def entries(group: Mapping[ArtifactId, Sequence[str]]) -> list[dict[str, Any]]:
        return [Artifact(key, tuple(files[path] for path in paths)).to_json() for key, paths in group.items()]

    sizes = [
        {
            "spec": size.spec.to_json(),
            "artifacts": entries(size.artifacts),
            "network": {"multiply_accumulates": size.multiply_accumulates},
        }
        for size in content.sizes
    ]
    return serialise(
        {
            "format_version": SIZES_VERSION if sizes else content.spec.format_version,
            "spec": content.spec.to_json(),
            "artifacts": entries(content.artifacts),
            **({"meshes": entries(content.meshes)} if content.meshes else {}),
            **({"sizes": sizes} if sizes else {}),
            "files": [files[path]._asdict() for path in sorted(files)],
            "provenance": content.provenance,
            **({RELEASE: content.release.to_json()} if content.release else {}),
        }
    )
