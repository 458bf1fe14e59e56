"""What decides the figures of an artifact besides the artifact itself: processor, Python and package versions."""

from __future__ import annotations

import importlib.metadata
import platform
from functools import cache

from retinaface_edge.runtime.host.targets import this_processor

PACKAGES = ("numpy", "pillow", "openvino", "onnxruntime", "ai-edge-litert", "tflite-runtime", "torch")


@cache
def environment() -> dict[str, str]:
    """Name to value: `machine`, `processor`, `python`, and the version of each installed package of `PACKAGES`."""
    processor = this_processor()
    named = processor.model if processor.model != "unknown" else processor.part
    found = {
        "machine": platform.machine(),
        "processor": named or platform.processor(),
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
