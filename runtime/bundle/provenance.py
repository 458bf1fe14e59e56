"""What a bundle's manifest says of where the bundle came from, for the bill of materials and the model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import BundleError
from ..spec import Spec
from .bundle import Bundle


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
    """Read them. Raises `BundleError` when the manifest lacks one."""
    try:
        provenance = bundle.manifest["provenance"]
        checkpoint, calibration = provenance["checkpoint"], provenance["calibration"]
        licences = provenance["licences"]
        return Facts(
            digest=str(bundle.manifest["digest"]),
            checkpoint=str(checkpoint["sha256"]),
            family=str(checkpoint["family"]),
            backbone=str(checkpoint["backbone"]) if "backbone" in checkpoint else _by_width(checkpoint["width"]),
            licence=str(checkpoint["licence"]),
            calibration=str(calibration["sha256"]),
            images=int(calibration["images"]),
            tools={str(k): (str(v), str(licences[k])) for k, v in provenance["tools"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"the manifest of {bundle.path} does not say where it came from ({error!r}); build it again"
        ) from error


def task(spec: Spec) -> str:
    """What a detector of this contract does, in a few words."""
    points = {0: "", 5: " with five landmarks"}.get(spec.landmarks, f" with {spec.landmarks} landmarks")
    return f"face detection{points}"


def _by_width(width: float) -> str:
    """The backbone as manifests had it before there were several."""
    return f"MobileNetV1 x{float(width):g}"
