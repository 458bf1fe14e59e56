"""A detector of several input sizes: each frame goes to the size that fits its shape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import backends
from .artifact import ArtifactId
from .bundle.bundle import Bundle
from .detector import DEFAULT_BOUNDS, Detector, Times
from .ops.faces import Faces
from .ops.letterbox import check_frame
from .ops.postprocess import Bounds
from .spec import Spec

Size = tuple[int, int]


def fitting_size(sizes: Sequence[Size], width: int, height: int) -> Size:
    """The input size, of `sizes` (width, height), for frames of `width` × `height` pixels.

    It is the one that keeps most of the frame's pixels, and the smallest of those that keep the same.
    """
    kept = {size: min(size[0] / width, size[1] / height, 1.0) for size in sizes}
    return min(kept, key=lambda size: (-kept[size], size[0] * size[1]))


class FittingDetector(Detector):
    """A `Detector` for every input size of a bundle; a size is loaded when a frame needs it.

    `spec` is that of the bundle's first size. `detect` and `detect_many` are used as a `Detector`'s are.
    """

    def __init__(
        self,
        spec: Spec,
        network: backends.Network,
        branch: Callable[[], tuple[backends.Network, backends.Network]] | None = None,
        artifact: ArtifactId | None = None,
    ) -> None:
        super().__init__(spec, network, branch, artifact)
        self._load: Callable[[Size], Detector] | None = None
        self._sizes: tuple[Size, ...] = ((spec.width, spec.height),)
        self._others: dict[Size, Detector] = {}

    @classmethod
    def load(
        cls, bundle: str | Path | Bundle, backend: str | None = None, precision: str | None = None, threads: int = 1
    ) -> FittingDetector:
        """Load the artifact for the bundle's first size. Raises as `Detector.load` does."""
        opened = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        loaded = super().load(opened.at(*opened.sizes[0]), backend, precision, threads)
        assert isinstance(loaded, cls)
        loaded._sizes = opened.sizes
        loaded._load = lambda size: Detector.load(opened.at(*size), loaded.backend, loaded.precision, threads)
        return loaded

    def __repr__(self) -> str:
        sizes = ", ".join(f"{width}x{height}" for width, height in self._sizes)
        return f"<FittingDetector {self.backend} {self.precision}, inputs {sizes}>"

    def close(self) -> None:
        """Let go of every network."""
        with self._lock:
            super().close()
            for detector in self._others.values():
                detector.close()

    def detect(
        self,
        frame: NDArray[np.uint8],
        score_threshold: float = 0.5,
        iou_threshold: float = 0.4,
        rgb: bool = False,
        mesh: bool = False,
        bounds: Bounds = DEFAULT_BOUNDS,
    ) -> Faces:
        """The faces of one frame, as `Detector.detect` gives them."""
        other = self._other(self._size_of(frame))
        if other is None:
            return super().detect(frame, score_threshold, iou_threshold, rgb, mesh, bounds)
        return other.detect(frame, score_threshold, iou_threshold, rgb, mesh, bounds)

    def detect_many(
        self,
        frames: Iterable[NDArray[np.uint8]],
        score_threshold: float = 0.5,
        iou_threshold: float = 0.4,
        rgb: bool = False,
        times: Times | None = None,
        mesh: bool = False,
        bounds: Bounds = DEFAULT_BOUNDS,
    ) -> Iterator[Faces]:
        """The faces of each frame, in order, as `Detector.detect_many` gives them.

        Frames of one size that follow each other overlap; where the size changes, the next frame waits.
        """
        arguments = (score_threshold, iou_threshold, rgb, times, mesh, bounds)
        first = super().detect_many
        first((), *arguments)  # raises what is wrong with the arguments now

        def faces() -> Iterator[Faces]:
            for size, group in groupby(frames, self._size_of):
                other = self._other(size)
                yield from (first if other is None else other.detect_many)(group, *arguments)

        return faces()

    def _size_of(self, frame: NDArray[np.uint8]) -> Size:
        height, width = check_frame(frame).shape[:2]
        return fitting_size(self._sizes, width, height)

    def _other(self, size: Size) -> Detector | None:
        """The detector of another size than the first one."""
        if size == self._sizes[0] or self._load is None:
            return None
        with self._lock:
            self._open(mesh=False)  # raises when it is closed
            if size not in self._others:
                self._others[size] = self._load(size)
            return self._others[size]
