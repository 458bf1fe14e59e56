"""Arguments that describe a face recognition network, for `drift --embedder` and `eval --pairs`."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import positive

if TYPE_CHECKING:
    from retinaface_edge.benchmarks.identity.crops import Recogniser


def add_recogniser(verb: argparse.ArgumentParser) -> None:
    """Add the recogniser, what its file cannot tell of its input, and where its embeddings may be written."""
    group = verb.add_argument_group("face recognition")
    group.add_argument("--embedder", type=Path, metavar="FILE", help="a face recognition network as ONNX")
    group.add_argument(
        "--embedder-size", type=positive, metavar="PX", help="side of its crops, where its input has no fixed size"
    )
    group.add_argument(
        "--embedder-mean", type=_number, metavar="M", help="its input is (x - M) / S (default: 127.5, as ArcFace's)"
    )
    group.add_argument("--embedder-std", type=_number, metavar="S", help="see --embedder-mean (default: 128)")
    group.add_argument("--embedder-colour", choices=("BGR", "RGB"), help="its order of colours (default: RGB)")
    group.add_argument(
        "--keep-embeddings",
        type=Path,
        metavar="FILE",
        help="write the embeddings (.npz); without it they are neither written nor cached",
    )


def recogniser_of(options: argparse.Namespace) -> Recogniser | None:
    """The recogniser that the options describe, None without --embedder. Raises `MeasurementError`, `EmbedderError`."""
    from retinaface_edge.benchmarks.errors import MeasurementError
    from retinaface_edge.benchmarks.identity.crops import read_recogniser
    from retinaface_edge.benchmarks.identity.embedder import Preprocessing
    from retinaface_edge.runtime.spec import Colour

    names = {"embedder_mean": "mean", "embedder_std": "std", "embedder_colour": "colour", "embedder_size": "size"}
    given = {name: getattr(options, option) for option, name in names.items() if getattr(options, option) is not None}
    if options.embedder is None:
        if given or options.keep_embeddings:
            option = next((o for o, name in names.items() if name in given), "keep_embeddings")
            raise MeasurementError(f"--{option.replace('_', '-')} is about a recogniser; give one with --embedder")
        return None
    if "colour" in given:
        given["colour"] = Colour(given["colour"])
    return read_recogniser(
        options.embedder, Preprocessing(**given), assumed=not given.keys() & {"mean", "std", "colour"}
    )


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value
