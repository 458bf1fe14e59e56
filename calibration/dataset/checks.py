"""Checks of a calibration set: what is wrong with it, and how that affects INT8."""

from __future__ import annotations

from collections import Counter

import numpy as np

from retinaface_edge.runtime.spec import Spec

from .image_set import ImageSet

FEWEST = 20
SMALL_SHARE = 0.5
BRIGHTNESS_SPREAD = 6.0
"""Least standard deviation of the pictures' mean brightness (0 to 255); below it, they show one scene in one light."""


def judge(images: ImageSet, faces: int, spec: Spec) -> list[str]:
    """Plain warnings, each with its consequence; none for a good set. `faces` counts images with a face in FP32."""
    warnings = []
    count = len(images.inputs)
    if count < FEWEST:
        warnings.append(
            f"only {count} calibration images: ranges will depend on what these happen to show; "
            f"give 100, or at least {FEWEST}"
        )
    repeated = count - len(Counter(image.tobytes() for image in images.inputs))
    if repeated:
        warnings.append(
            f"{repeated} of {count} calibration images repeat others: duplicates only skew the ranges; remove them"
        )
    if faces == 0:
        warnings.append(
            "FP32 finds no face on any calibration image: the outputs' ranges are guessed, and INT8 may lose "
            "faces; give photographs with faces of the sizes you want found"
        )
    small = sum(w < SMALL_SHARE * spec.width and h < SMALL_SHARE * spec.height for w, h in images.sizes)
    if small * 2 > count:
        warnings.append(
            f"{small} of {count} calibration images are under half of {spec.width}x{spec.height}: enlarged pictures "
            "are smooth, and ranges for sharp ones come out too narrow; give larger ones"
        )
    if count > 1 and np.std([image.mean() for image in images.inputs]) < BRIGHTNESS_SPREAD:
        warnings.append(
            "all calibration images are about equally bright: in other light, values will be clipped; add darker and "
            "brighter ones"
        )
    return warnings
