"""Quantity: the faces that a network finds in a picture, at a scale."""

from __future__ import annotations

from dataclasses import dataclass

from retinaface_edge.runtime.ops.postprocess import Faces, postprocess

from .network_under_test import NetworkUnderTest, digest_of
from .open_picture import OpenPicture, resident_network
from .result_cache import Arrays
from .scales import INPUT, detect_at_scale

LEAST_SCORE = 0.02
"""Detections below it are not kept: they are beyond the precision–recall curve's useful end."""


@dataclass(frozen=True)
class FacesFound:
    """The faces from a score of 0.02 on, in pixels of the picture."""

    network: NetworkUnderTest
    scale: str = INPUT

    @property
    def key(self) -> str:
        """See `Quantity`."""
        return digest_of("faces", self.scale, self.network.digest)

    def measure(self, picture: OpenPicture) -> Arrays:
        """Arrays `scores`, `boxes` and `landmarks`, as those of `Faces`."""
        spec = self.network.spec
        if self.scale == INPUT:
            outputs = picture.outputs(self.network)
            _, placement = picture.network_input(spec)
            faces = postprocess(spec, outputs.raw, outputs.quant_params, placement, LEAST_SCORE)
        else:
            network = resident_network(self.network)
            faces = detect_at_scale(spec, network, picture.frame, self.scale, LEAST_SCORE)
        return arrays_of(faces)

    def value(self, arrays: Arrays) -> Faces:
        """The faces."""
        return faces_of(arrays)


def arrays_of(faces: Faces) -> Arrays:
    """The arrays of faces by name."""
    arrays = {"scores": faces.scores, "boxes": faces.boxes, "landmarks": faces.landmarks}
    return arrays if faces.vertices is None else {**arrays, "vertices": faces.vertices}


def faces_of(arrays: Arrays) -> Faces:
    """The faces of such arrays."""
    return Faces(arrays["scores"], arrays["boxes"], arrays["landmarks"], arrays.get("vertices"))
