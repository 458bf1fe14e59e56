"""Device bundles on disk: the manifest, and reading artifacts only after their digest was checked.

The manifest is canonical JSON (sorted keys, two spaces, one newline at the end) and contains its own digest, so
that any changed byte in a bundle is detected.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from ..artifact import ArtifactId, File, Precision
from ..errors import BundleError, SpecError
from ..io.untrusted import parse_json, read_file
from ..spec import Spec
from .signature import SIGNATURE, check_form, check_signature, configured_keys

if TYPE_CHECKING:
    from .manifest import ArtifactEntry, Manifest

SIZES_VERSION = 3
"""Of bundles with several input sizes."""
FORMAT_VERSIONS = (1, 2, SIZES_VERSION)
"""That this version reads; which of the first two a bundle has depends on its contract (`Spec.format_version`)."""
MANIFEST = "manifest.json"
DEVICE = "device.json"
"""What one machine prefers (`artifact_choice.py`): the only file in a bundle that is not of the build."""
PRECISIONS = tuple(precision.value for precision in Precision)
MANIFEST_BYTES, FILE_BYTES = 1 << 24, 1 << 30
"""Most bytes of a manifest and of any other file: more is an attempt on the memory of who reads it."""


class Artifact(NamedTuple):
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


class SizedNetwork(NamedTuple):
    """The detector for one input size: the contract, the artifacts that keep it, and what one frame costs."""

    spec: Spec
    artifacts: tuple[Artifact, ...]
    multiply_accumulates: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the input."""
        return self.spec.width, self.spec.height


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle whose manifest was read and checked. Its files are checked when they are read.

    `spec` and `artifacts` are those of its first input size, or of the size that `at` was given.
    """

    path: Path
    spec: Spec
    artifacts: tuple[Artifact, ...]
    files: tuple[File, ...]
    manifest: Mapping[str, Any]
    meshes: tuple[Artifact, ...] = ()
    """The dense branch's networks, where the bundle has one. They are the same for every input size."""
    networks: tuple[SizedNetwork, ...] = ()
    """The detector for every input size, the first one first."""

    @classmethod
    def load(cls, path: str | Path, key: Path | Sequence[Path] | None = None) -> Bundle:
        """Read the manifest of the bundle in folder `path`.

        With `key`, one or several, or keys configured by the environment (`signature.py`), the manifest must be signed
        by one of them, and its release must not be expired or older than this device accepts (`release.py`). Raises
        `BundleError` when it is not, or when the manifest is missing or damaged.
        """
        from ..records import RecordError, from_json  # late: with its ten types, a fifth of what an import takes
        from .manifest import Manifest

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
            # Its provenance is for those who ask where it came from (`provenance.py`); a device need not.
            entries = from_json(Manifest, {key: value for key, value in manifest.items() if key != "provenance"})
            if keys:
                from .release import check_release, release_of

                check_release(release_of(manifest), str(folder))
            networks = _networks(manifest, entries)
            return cls(
                path=folder,
                spec=networks[0].spec,
                artifacts=networks[0].artifacts,
                meshes=_artifacts(entries.meshes),
                files=tuple(map(_checked, entries.files)),
                manifest=manifest,
                networks=networks,
            )
        except (ValueError, RecordError, SpecError) as error:
            raise BundleError(f"the manifest of {folder} is invalid ({error}); build the bundle again") from error

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """Its input sizes (width, height), the first one first."""
        return tuple(network.size for network in self.networks)

    @property
    def sized_artifacts(self) -> tuple[tuple[str, Artifact], ...]:
        """The detector's artifacts of every input size, each with the name of its size where there are several."""
        several = len(self.networks) > 1
        return tuple(
            (f"{network.spec.width}x{network.spec.height}" if several else "", artifact)
            for network in self.networks
            for artifact in network.artifacts
        )

    @property
    def multiply_accumulates(self) -> int | None:
        """What one frame of this input size costs; None where the manifest does not say."""
        return next((each.multiply_accumulates for each in self.networks if each.spec == self.spec), None)

    def at(self, width: int, height: int) -> Bundle:
        """The bundle as one of that input size alone. Raises `BundleError` naming the sizes that are there."""
        for network in self.networks:
            if network.size == (width, height):
                return replace(self, spec=network.spec, artifacts=network.artifacts)
        present = ", ".join(f"{w}x{h}" for w, h in self.sizes)
        raise BundleError(f"{self.path} has no input size {width}x{height}; it has: {present}")

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

        This includes folders and links. Raises `BundleError` at the first that is wrong.
        """
        for artifact in (*(artifact for _, artifact in self.sized_artifacts), *self.meshes):
            for file in artifact.files:
                if file not in self.files:
                    raise BundleError(
                        f"the manifest of {self.path} lists {file.path} of {artifact.name} differently in its "
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
        raise BundleError(f"{error.filename} cannot be read ({error.strerror}), so its contents cannot be checked")

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
    import json  # late, as in `io/untrusted.py`

    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _sha256(content: bytes) -> str:
    import hashlib  # late: it loads OpenSSL

    return hashlib.sha256(content).hexdigest()


def _parse(text: bytes, folder: Path) -> Mapping[str, Any]:
    try:
        manifest = parse_json(text)
        intact = isinstance(manifest, dict) and serialise(manifest) == text
    except (ValueError, RecursionError):
        manifest, intact = {}, False
    if not intact:
        raise BundleError(f"{folder / MANIFEST} was changed or cut short after the build; build the bundle again")
    if (version := manifest.get("format_version")) not in FORMAT_VERSIONS:
        *first, last = map(str, FORMAT_VERSIONS)
        raise BundleError(
            f"{folder} has bundle format {version!r}, this version reads {', '.join(first)} and {last}; "
            "build the bundle again, or install the version that wrote it"
        )
    return dict(manifest)


def _networks(manifest: Mapping[str, Any], entries: Manifest) -> tuple[SizedNetwork, ...]:
    """The detector for each input size. Raises `ValueError` and `SpecError`."""
    provenance = manifest.get("provenance")
    network = provenance.get("network") if isinstance(provenance, dict) else None
    cost = network.get("multiply_accumulates") if isinstance(network, dict) else None
    first = SizedNetwork(
        Spec.from_json(manifest["spec"]), _artifacts(entries.artifacts), cost if isinstance(cost, int) else None
    )
    networks = [first]
    for entry, content in zip(entries.sizes, manifest.get("sizes", ()), strict=True):
        sized = SizedNetwork(
            Spec.from_json(content["spec"]), _artifacts(entry.artifacts), entry.network.multiply_accumulates
        )
        width, height = sized.size
        if replace(first.spec, width=width, height=height) != sized.spec:
            raise ValueError(f"for {width}x{height} it has another detector than for its first size")
        if any(sized.size == other.size for other in networks):
            raise ValueError(f"it has the input size {width}x{height} twice")
        networks.append(sized)
    return tuple(networks)


def _artifacts(entries: Sequence[ArtifactEntry]) -> tuple[Artifact, ...]:
    artifacts = tuple(
        Artifact(ArtifactId(entry.backend, entry.precision), tuple(map(_checked, entry.files))) for entry in entries
    )
    if empty := [artifact.name for artifact in artifacts if not artifact.files]:
        raise ValueError(f"the artifact {empty[0]} has no files")
    return artifacts


def _checked(file: File) -> File:
    """The file under its normal path, which lies in the bundle. Raises `ValueError`."""
    path = PurePosixPath(file.path)
    if path.is_absolute() or ".." in path.parts or not {"\\", "\0"}.isdisjoint(str(path)):
        raise ValueError(f"the path {str(path)!r} points outside the bundle")
    if not 0 <= file.bytes <= FILE_BYTES:
        raise ValueError(f"{path} has {file.bytes:,} bytes; at most {FILE_BYTES:,} are accepted")
    return File(str(path), file.bytes, file.sha256)
