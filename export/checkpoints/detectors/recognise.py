"""Tells which family of detectors an ONNX file belongs to, by its graph."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import fields, replace

from ...graph.detector_graph import DetectorGraph, GraphError, read_detector_graph
from ..checkpoint import CheckpointError
from ..interpretation import Overrides
from .onnx_detector import OnnxDetector
from .scrfd import read_scrfd
from .yunet import read_yunet

FAMILIES: tuple[Callable[[DetectorGraph], OnnxDetector | None], ...] = (read_yunet, read_scrfd)
"""Each gives the detector if the graph is one of its family. A new family is one more."""


def read_onnx_detector(content: bytes, name: str, overrides: Overrides) -> OnnxDetector | None:
    """The detector in an ONNX file, if it is one of `FAMILIES`; None for everything else, which may be a RetinaFace.

    Raises `CheckpointError` when `overrides` do not fit it.
    """
    try:
        graph = read_detector_graph(content)
    except GraphError:
        return None
    found = next((found for read in FAMILIES if (found := read(graph)) is not None), None)
    if found is None:
        return None
    if overrides.leaky is not None:
        raise CheckpointError(f"{name} is a {found.title}, whose graph has its activations; leave out --activation")
    given = {field.name: getattr(overrides, field.name) for field in fields(overrides)}
    settings = {**found.settings, **{key: value for key, value in given.items() if value is not None}}
    shape = tuple(len(level) for level in settings["anchor_sizes"])
    if shape != (expected := tuple(len(level) for level in found.settings["anchor_sizes"])):
        raise CheckpointError(f"{name} has {expected} anchors per cell of its levels; --anchors has {shape}")
    return replace(found, settings=settings, digest=hashlib.sha256(content).hexdigest())
