"""What a bundle's manifest says of where the bundle came from, for the bill of materials and the model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import BundleError
from .bundle import Bundle


@dataclass(frozen=True)
class Facts:
    """Digests are SHA-256 in hexadecimal; `digest` is the manifest's own. `tools` maps names to version and licence."""

    digest: str
    checkpoint: str
    family: str
    width: float
    licence: str
    calibration: str
    images: int
    tools: Mapping[str, tuple[str, str]]


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
            width=float(checkpoint["width"]),
            licence=str(checkpoint["licence"]),
            calibration=str(calibration["sha256"]),
            images=int(calibration["images"]),
            tools={str(k): (str(v), str(licences[k])) for k, v in provenance["tools"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BundleError(
            f"the manifest of {bundle.path} does not say where it came from ({error!r}); build it again"
        ) from error
