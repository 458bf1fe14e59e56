"""Device bundles on disk: the manifest, and reading artifacts only after their digest was checked.

The manifest is canonical JSON (sorted keys, two spaces, one newline at the end) and carries the digest of itself, so
that any changed byte in a bundle is found.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ..artifact import ArtifactId, Backend, Precision
from ..errors import BundleError, SpecError
from ..io.untrusted import parse_json, read_file
from ..spec import Spec
from .release import check_release, release_of
from .signature import SIGNATURE, check_form, check_signature, configured_keys

FORMAT_VERSIONS = (1, 2)
"""That this version reads; which one a bundle has depends on its contract (`Spec.format_version`)."""
MANIFEST = "manifest.json"
DEVICE = "device.json"
"""What one machine prefers (`artifact_choice.py`): the only file in a bundle that is not of the build."""
PRECISIONS = tuple(precision.value for precision in Precision)
MANIFEST_BYTES, FILE_BYTES = 1 << 24, 1 << 30
"""Most bytes of a manifest and of any other file: more is an attempt on the memory of who reads it."""


class File(NamedTuple):
    """One file of a bundle: its path inside it, its size in bytes and its SHA-256."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Artifact:
    """One compiled network: its backend and precision, and its files, the model itself first."""

    id: ArtifactId
    files: tuple[File, ...]

    @property
    def backend(self) -> str:
        """What runs it, as text."""
        return self.id.backend.value

    @property
    def precision(self) -> str:
        """What it computes in, as text."""
        return self.id.precision.value

    @property
    def name(self) -> str:
        """For people, for instance `openvino int8`."""
        return str(self.id)

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(file.bytes for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """Its entry in the manifest."""
        return {"backend": self.backend, "precision": self.precision, "files": [file._asdict() for file in self.files]}


@dataclass(frozen=True)
class Bundle:
    """A bundle whose manifest was read and found whole. Its files are checked when they are read."""

    path: Path
    spec: Spec
    artifacts: tuple[Artifact, ...]
    files: tuple[File, ...]
    manifest: Mapping[str, Any]
    meshes: tuple[Artifact, ...] = ()
    """The dense branch's networks, where the bundle has one."""

    @classmethod
    def load(cls, path: str | Path, key: Path | Sequence[Path] | None = None) -> Bundle:
        """Read the manifest of the bundle in folder `path`.

        With `key`, one or several, or keys configured by the environment (`signature.py`), the manifest must be signed
        by one of them, and its release must not be over or older than this device accepts (`release.py`). Raises
        `BundleError` when it is not, or when the manifest is missing or damaged.
        """
        folder = Path(path)
        if not os.path.isdir(folder):  # False, too, when the disk does not answer
            raise BundleError(f"{folder} is not a folder; give the folder that `retinaface-edge build` wrote")
        try:
            text = read_file(folder / MANIFEST, MANIFEST_BYTES, links=False)
        except OSError as error:
            raise BundleError(
                f"{folder} holds no readable {MANIFEST}, so it is not a bundle ({error.strerror})"
            ) from error
        keys = (key,) if isinstance(key, Path) else tuple(key or ()) or configured_keys()
        if keys:
            check_signature(text, folder / SIGNATURE, *keys)
        manifest = _parse(text, folder)
        try:
            if keys:
                check_release(release_of(manifest), str(folder))
            return cls(
                path=folder,
                spec=Spec.from_json(manifest["spec"]),
                artifacts=_artifacts(manifest["artifacts"]),
                meshes=_artifacts(manifest.get("meshes", [])),
                files=tuple(_file(f) for f in manifest["files"]),
                manifest=manifest,
            )
        except (KeyError, TypeError, ValueError, SpecError) as error:
            raise BundleError(
                f"the manifest of {folder} lacks what a bundle needs ({error}); build it again"
            ) from error

    def artifact(self, backend: str, precision: str) -> Artifact:
        """The artifact for a backend and precision. Raises `BundleError` naming those that are there."""
        return self._one_of(self.artifacts, "artifact", backend, precision)

    def mesh(self, backend: str, precision: str) -> Artifact:
        """The dense branch for a backend and precision. Raises `BundleError` when the bundle has none."""
        if self.spec.mesh is None:
            raise BundleError(f"{self.path} has no dense branch; build it with --mesh, or detect without")
        return self._one_of(self.meshes, "dense branch", backend, precision)

    def _one_of(self, artifacts: tuple[Artifact, ...], kind: str, backend: str, precision: str) -> Artifact:
        for artifact in artifacts:
            if (artifact.backend, artifact.precision) == (backend, precision):
                return artifact
        present = ", ".join(artifact.name for artifact in artifacts) or "none"
        raise BundleError(f"{self.path} has no {kind} for {backend} {precision}; it has: {present}")

    def read(self, file: File) -> bytes:
        """The bytes of one file, checked against its size and digest. Raises `BundleError` when they differ."""
        try:
            content = read_file(self.path / file.path, file.bytes, links=False)
        except OSError as error:
            if error.errno == errno.EFBIG:
                raise self._changed(file) from error
            raise BundleError(
                f"{self.path / file.path} cannot be read ({error.strerror}); build the bundle again"
            ) from error
        if len(content) != file.bytes or _sha256(content) != file.sha256:
            raise self._changed(file)
        return content

    def verify(self) -> None:
        """Check every file, that the artifacts are of these files, and that the folder holds nothing else.

        Every entry counts, folders and links too. Raises `BundleError` at the first that is wrong.
        """
        for artifact in (*self.artifacts, *self.meshes):
            for file in artifact.files:
                if file not in self.files:
                    raise BundleError(
                        f"the manifest of {self.path} describes {file.path} of {artifact.name} otherwise than in its "
                        "list of files; build the bundle again"
                    )
        for file in self.files:
            self.read(file)
        paths = [PurePosixPath(path) for path in (*(file.path for file in self.files), MANIFEST, SIGNATURE, DEVICE)]
        listed = {path.as_posix() for path in paths} | {parent.as_posix() for path in paths for parent in path.parents}
        if unknown := sorted(set(_entries(self.path)) - listed):
            raise BundleError(f"{self.path} holds what its manifest does not list: {unknown[0]}; remove it")
        check_form(self.path / SIGNATURE)

    def _changed(self, file: File) -> BundleError:
        return BundleError(f"{self.path / file.path} was changed after the build; build the bundle again")


def _entries(folder: Path) -> Iterator[str]:
    """Every entry below the folder, by its path from there. No link is followed. Raises `BundleError`."""

    def failed(error: OSError) -> None:
        raise BundleError(f"{error.filename} cannot be read ({error.strerror}), so it is not known what it holds")

    for place, folders, files in os.walk(folder, onerror=failed):
        for name in (*folders, *files):
            yield (Path(place) / name).relative_to(folder).as_posix()


def describe(path: str, content: bytes) -> File:
    """The manifest's entry for a file of that content at `path` inside a bundle."""
    return File(path, len(content), _sha256(content))


def serialise(manifest: Mapping[str, Any]) -> bytes:
    """The bytes of manifest.json: `manifest` with its own digest added. A `digest` already in it is replaced."""
    content = {key: value for key, value in manifest.items() if key != "digest"}
    return _canonical({**content, "digest": _sha256(_canonical(content))})


def _canonical(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _sha256(content: bytes) -> str:
    import hashlib  # late: loading OpenSSL is a fifth of what importing this package takes

    return hashlib.sha256(content).hexdigest()


def _parse(text: bytes, folder: Path) -> Mapping[str, Any]:
    try:
        manifest = parse_json(text)
        whole = isinstance(manifest, dict) and serialise(manifest) == text
    except (ValueError, RecursionError):
        manifest, whole = {}, False
    if not whole:
        raise BundleError(f"{folder / MANIFEST} was changed or cut short after the build; build the bundle again")
    if (version := manifest.get("format_version")) not in FORMAT_VERSIONS:
        readable = " and ".join(map(str, FORMAT_VERSIONS))
        raise BundleError(
            f"{folder} has bundle format {version!r}, this version reads {readable}; "
            "build the bundle again, or install the version that wrote it"
        )
    return dict(manifest)


def _artifacts(entries: Sequence[Mapping[str, Any]]) -> tuple[Artifact, ...]:
    artifacts = tuple(
        Artifact(ArtifactId(Backend(a["backend"]), Precision(a["precision"])), tuple(_file(f) for f in a["files"]))
        for a in entries
    )
    if empty := [artifact.name for artifact in artifacts if not artifact.files]:
        raise ValueError(f"the artifact {empty[0]} has no files")
    return artifacts


def _file(fields: Mapping[str, Any]) -> File:
    path = PurePosixPath(fields["path"])
    if path.is_absolute() or ".." in path.parts or not {"\\", "\0"}.isdisjoint(str(path)):
        raise ValueError(f"the path {str(path)!r} leaves the bundle")
    size = int(fields["bytes"])
    if not 0 <= size <= FILE_BYTES:
        raise ValueError(f"{path} has {size:,} bytes; more than {FILE_BYTES:,} are refused")
    return File(str(path), size, str(fields["sha256"]))
