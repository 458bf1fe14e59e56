"""The verb `serve`: a camera, stream or video with its faces, live in the browser."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from retinaface_edge.runtime.backends import BACKENDS
from retinaface_edge.runtime.bundle.bundle import PRECISIONS, Bundle
from retinaface_edge.runtime.errors import ImageError

from .arguments import Verbs, add_camera, add_input_size, add_verb, camera_options, load_detector, port, positive, share
from .exit_codes import GOOD
from .progress import say

TOKEN = "RETINAFACE_EDGE_TOKEN"


def serve(options: argparse.Namespace) -> int:
    """`serve`: a page, a stream of faces, pictures, health and metrics."""
    import aiohttp  # noqa: F401  # said before the bundle is read, if it is missing

    from retinaface_edge.runtime.io.frame_source import Stream

    from ..serve.formats import About
    from ..serve.pipeline import Settings
    from ..serve.server import serve as run
    from ..serve.site import Endpoint

    stream = Stream(options.source, warn=say, camera_options=camera_options(options))
    if not stream.live and not Path(options.source).is_file():
        raise ImageError(f"{options.source} does not exist; give a camera's index, the URL of a stream or a video file")
    bundle = Bundle.load(options.bundle)
    token = os.environ.get(TOKEN) if options.token is None else options.token
    endpoint = Endpoint(options.host, options.port, token)
    with load_detector(options, bundle) as detector:
        about = About(_version(), detector.backend or "unknown", detector.precision or "unknown")
        settings = Settings(options.score_threshold, options.mesh)
        run(detector, stream, settings, endpoint, about, lambda address: print(f"serving {address}", flush=True))
    return GOOD


def _version() -> str:
    from retinaface_edge import __version__

    return __version__


def add_serve(verbs: Verbs) -> None:
    """Add the verb and its arguments."""
    verb = add_verb(
        verbs,
        "serve",
        serve,
        "show a camera with its faces in the browser",
        "serve bundle 0 --port 8000",
        extra="serve",
    )
    verb.add_argument("bundle", type=Path)
    verb.add_argument("source", help="a camera's index, picamera, a stream's URL, or a video file, which is repeated")
    verb.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for other machines (default: this one only)")
    verb.add_argument("--port", type=port, default=8000, help="0 takes a free one (default: %(default)s)")
    verb.add_argument(
        "--token",
        help=f"token that viewers must send (default: ${TOKEN}; a new one with --host, none on this machine only)",
    )
    add_input_size(verb)
    verb.add_argument("--backend", choices=BACKENDS, help="default: the choice of bench --store, or the best installed")
    verb.add_argument("--precision", choices=PRECISIONS, help="default: the choice of bench --store, or int8")
    verb.add_argument("--threads", type=positive, default=1, help="default: %(default)s")
    verb.add_argument(
        "--score-threshold",
        type=share,
        default=0.5,
        metavar="S",
        help="lowest score of a face, 0 to 1 (default: %(default)s)",
    )
    verb.add_argument("--mesh", action="store_true", help="also find the 3D mesh of each face")
    add_camera(verb)
