"""What a bundle's manifest says about where the bundle came from, for the bill of materials and the model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import BundleError
from ..records import RecordError, from_json
from ..spec import Spec
from .bundle import Bundle
from .manifest import Provenance


@dataclass(frozen=True)
class Facts:
    """Digests are SHA-256 in hexadecimal; `digest` is the manifest's own. `tools` maps names to version and licence.

    `family` is whose checkpoint it was. A detector that is a family of its own, such as SCRFD, is its own `backbone`.
    """

    digest: str
    checkpoint: str
    family: str
    backbone: str
    licence: str
    calibration: str
    images: int
    tools: Mapping[str, tuple[str, str]]

    @property
    def detector(self) -> str:
        """What it is called, for instance `RetinaFace, MobileNetV1 x0.25` or `SCRFD`."""
        return self.family if self.family == self.backbone else f"RetinaFace, {self.backbone}"

    @property
    def architecture(self) -> str:
        """The detector's name alone, `RetinaFace` or `SCRFD`."""
        return self.detector.partition(",")[0]


def facts(bundle: Bundle) -> Facts:
    """Read them. Raises `BundleError` naming what the manifest lacks, or has and should not."""
    try:
        made_from = from_json(Provenance, bundle.manifest.get("provenance"), "provenance")
        checkpoint, calibration = made_from.checkpoint, made_from.calibration
        return Facts(
            digest=str(bundle.manifest["digest"]),
            checkpoint=checkpoint.sha256,
            family=checkpoint.family,
            backbone=checkpoint.backbone or _by_width(checkpoint.width),
            licence=checkpoint.licence,
            calibration=calibration.sha256,
            images=calibration.images,
            tools={name: (version, made_from.licences[name]) for name, version in made_from.tools.items()},
        )
    except (KeyError, RecordError) as error:
        raise BundleError(
            f"the manifest of {bundle.path} does not say where it came from ({error}); build it again"
        ) from error


def task(spec: Spec) -> str:
    """What a detector of this contract does, in a few words."""
    points = {0: "", 5: " with five landmarks"}.get(spec.landmarks, f" with {spec.landmarks} landmarks")
    return f"face detection{points}"


def _by_width(width: float | None) -> str:
    """The backbone as manifests had it before there were several. Raises `RecordError` when they have neither."""
    if width is None:
        raise RecordError("the field provenance.checkpoint.backbone is missing")
    return f"MobileNetV1 x{width:g}"
