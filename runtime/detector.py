"""The detector: frame in, faces out."""

from __future__ import annotations

import threading
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import backends
from .bundle import Bundle
from .postprocess import Faces, postprocess
from .preprocess import Letterbox, check_frame, letterbox, letterbox_for
from .spec import Spec

FRAME_SIZES_KEPT = 8


class Detector:
    """A loaded artifact with its pre- and post-processing.

    >>> detector = Detector.load("bundle", backend="openvino", precision="int8")
    >>> for face in detector.detect(frame):
    ...     print(face.score, face.box)
    """

    def __init__(self, spec: Spec, network: backends.Network) -> None:
        self.spec = spec
        self._network = network
        self._input = np.empty(spec.input_shape, np.uint8)
        self._lock = threading.Lock()
        self._placement = lru_cache(FRAME_SIZES_KEPT)(lambda width, height: letterbox_for(spec, width, height))

    @classmethod
    def load(
        cls, bundle: str | Path | Bundle, backend: str = "openvino", precision: str = "int8", threads: int = 1
    ) -> Detector:
        """Load one artifact of a bundle, its digest checked, onto `threads` threads.

        Raises `BundleError` when the bundle is damaged or lacks the artifact, `BackendError` when the backend is
        missing.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.load(bundle)
        files = [opened.read(file) for file in opened.artifact(backend, precision).files]
        return cls(opened.spec, backends.load(backend, opened.spec, files, threads))

    def detect(
        self,
        frame: NDArray[np.uint8],
        score_threshold: float = 0.5,
        iou_threshold: float = 0.4,
        rgb: bool = False,
    ) -> Faces:
        """The faces of one frame, in pixels of that frame.

        `frame` is uint8, shape (h, w, 3) in BGR (RGB if `rgb`) or (h, w) grey, of any size. Safe to call from several
        threads: calls take turns. Raises `ImageError` for any other array.
        """
        pixels = check_frame(frame)
        placement: Letterbox = self._placement(pixels.shape[1], pixels.shape[0])
        with self._lock:
            letterbox(self.spec, placement, pixels, self._input, rgb)
            outputs = self._network.run(self._input)
            return postprocess(self.spec, outputs, self._network.grids, placement, score_threshold, iou_threshold)
