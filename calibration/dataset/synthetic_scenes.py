"""Calibration scenes composed from the photographs inside scikit-image, for users without a picture folder.

The astronaut's portrait or her head, at sides from 41 to 480 pixels, flipped, pasted one to eight times over the other
photographs, at brightness 0.5 to 1.3: faces from 8 to about 250 pixels. Seeded: the same count gives the same pixels.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from retinaface_edge.runtime.spec import Spec

from .image_set import CalibrationError, Frame, ImageSet, Warn, image_set

SCENES = 100
WIDTH, HEIGHT = 640, 480
HEAD = (slice(10, 210), slice(120, 320))
SMALLEST, LARGEST = 41, 480
_NOT_INSTALLED = (
    "the demo's photographs are not installed; run: pip install 'retinaface-edge[demo]', or give --calibration"
)
BACKGROUNDS = ("coffee", "chelsea", "camera", "rocket", "brick", "grass", "page", "text")


@dataclass(frozen=True)
class Scenes:
    """The first `count` scenes as an `ImageSource`."""

    count: int

    @property
    def digest(self) -> str:
        """Of the number of scenes, and the versions that decide their pixels."""
        try:
            parts = [f"{name} {version(name)}" for name in ("scikit-image", "numpy", "pillow")]
        except PackageNotFoundError as error:
            raise CalibrationError(_NOT_INSTALLED) from error
        return hashlib.sha256(" ".join([f"{self.count} scenes", *parts]).encode()).hexdigest()

    def read(self, spec: Spec, warn: Warn) -> ImageSet:
        """Compose them."""
        return image_set(spec, scenes(self.count), "the demo scenes")


def portrait() -> Frame:
    """The astronaut: BGR uint8, 512×512. Raises `CalibrationError` when scikit-image is not installed."""
    return _photograph("astronaut")


def scenes(count: int = SCENES, seed: int = 0) -> list[Frame]:
    """`count` scenes, BGR uint8 of shape (480, 640, 3)."""
    random = np.random.default_rng(seed)
    face, backgrounds = portrait(), [_photograph(name) for name in BACKGROUNDS]
    return [_scene(random, face, backgrounds[random.integers(len(backgrounds))]) for _ in range(count)]


def _scene(random: np.random.Generator, face: Frame, background: Frame) -> Frame:
    canvas = _resized(background, WIDTH, HEIGHT)
    for _ in range(random.integers(1, 9)):
        side = int(np.exp(random.uniform(np.log(SMALLEST), np.log(LARGEST))))
        patch = _resized(face[HEAD] if random.random() < 0.5 else face, side, side)
        if random.random() < 0.5:
            patch = patch[:, ::-1]
        x, y = random.integers(0, WIDTH - side + 1), random.integers(0, HEIGHT - side + 1)
        canvas[y : y + side, x : x + side] = patch
    brightness = random.uniform(0.5, 1.3)
    return np.asarray(np.clip(np.rint(canvas * brightness), 0, 255).astype(np.uint8))


def _resized(frame: Frame, width: int, height: int) -> Frame:
    """Pillow's bilinear averages over the whole source area where the picture shrinks, so small faces stay faces."""
    from PIL import Image

    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR)).copy()


def _photograph(name: str) -> Frame:
    try:
        from skimage import data
    except ImportError as error:
        raise CalibrationError(_NOT_INSTALLED) from error
    pixels = np.asarray(getattr(data, name)())
    if pixels.dtype != np.uint8:
        pixels = (pixels * 255).astype(np.uint8)
    return np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, 2::-1])
