"""The five-point aligned crop that face recognition networks of the ArcFace family were trained on.

The crop is the picture under the similarity (rotation, scale, shift) that brings the five landmarks nearest, in the
sense of least squares, to where they lie in the training crops.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import ImageError
from .faces import Face
from .letterbox import check_frame

# Left eye, right eye, nose, left and right mouth corner in a crop of 112 × 112, as published with ArcFace
# (arXiv 1801.07698) in its reference implementation, InsightFace.
TEMPLATE_SIZE = 112
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)


def aligned(
    image: NDArray[np.uint8],
    face: Face | ArrayLike,
    size: int = TEMPLATE_SIZE,
    template: NDArray[np.float64] = TEMPLATE,
) -> NDArray[np.uint8]:
    """The crop of `face`, uint8 of shape (size, size, 3), or (size, size) for a grey image; channels as in `image`.

    `image` is the frame that `face` was found in, uint8 of shape (h, w, 3) or (h, w); its landmarks alone, (k, 2), are
    enough. Pixels are sampled bilinearly, and what lies outside the image is black. `template` (k, 2) is where the
    landmarks belong in a crop of 112 × 112: ArcFace's five points by default. Raises `ImageError` for another array, a
    size below 1, another number of landmarks than the template has, or landmarks that are all at one point.
    """
    pixels = check_frame(image)
    if size < 1:
        raise ImageError(f"an aligned crop must be at least 1 pixel wide, not {size}")
    points = face.landmarks if isinstance(face, Face) else face
    try:
        landmarks = np.asarray(points, np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise ImageError(f"a crop is aligned by a face or its landmarks, (k, 2) numbers, not by {points!r}") from error
    if landmarks.shape != template.shape:
        raise ImageError(f"the template has {len(template)} points, and the face has {len(landmarks)} landmarks")
    matrix = similarity(template * (size / TEMPLATE_SIZE), landmarks)
    y, x = np.mgrid[:size, :size].astype(np.float64)
    return _sample(
        pixels, matrix[0, 0] * x + matrix[0, 1] * y + matrix[0, 2], matrix[1, 0] * x + matrix[1, 1] * y + matrix[1, 2]
    )


def similarity(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """The similarity that brings points `source` (n, 2) nearest to `target` (n, 2), as a matrix (2, 3).

    Least squares over rotation, scale and shift, without reflection (Umeyama 1991). In the plane it has a closed form:
    with points as complex numbers about their means, rotation and scale are one factor, Σ conj(s)·t / Σ |s|². Raises
    `ImageError` when the points of either side coincide or are not finite.
    """
    s, t = (points[:, 0] + 1j * points[:, 1] for points in (source, target))
    s_mean, t_mean = s.mean(), t.mean()
    spread = float(np.sum(np.abs(s - s_mean) ** 2))
    factor = np.sum(np.conj(s - s_mean) * (t - t_mean)) / spread if spread > 0.0 else 0.0
    if not np.isfinite(factor) or factor == 0.0:
        raise ImageError("the face cannot be aligned: its landmarks are at one point or are not finite")
    shift = t_mean - factor * s_mean
    return np.array([[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]])


def _sample(pixels: NDArray[np.uint8], x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Bilinear samples of `pixels` at `x`, `y`, arrays of one shape; black outside."""
    height, width = pixels.shape[:2]
    # Beyond one pixel outside all is black: clipping there keeps every coordinate a valid integer.
    x, y = np.clip(x, -1.0, width), np.clip(y, -1.0, height)
    left, top = np.floor(x).astype(np.intp), np.floor(y).astype(np.intp)
    right_weight, bottom_weight = x - left, y - top
    total = np.zeros((*x.shape, *pixels.shape[2:]))
    for down, row_weight in ((0, 1.0 - bottom_weight), (1, bottom_weight)):
        for along, weight in ((0, 1.0 - right_weight), (1, right_weight)):
            column, row = left + along, top + down
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            share = np.where(inside, row_weight * weight, 0.0)
            taken = pixels[np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)]
            total += taken * (share if pixels.ndim == 2 else share[..., np.newaxis])
    return np.rint(total).astype(np.uint8)
