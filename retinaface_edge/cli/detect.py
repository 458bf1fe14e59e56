"""The verb `detect`: the faces of pictures, or of a video, a camera or a stream."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from retinaface_edge.runtime.backends import BACKENDS
from retinaface_edge.runtime.bundle.bundle import PRECISIONS, Bundle
from retinaface_edge.runtime.errors import ImageError
from retinaface_edge.runtime.io.atomic import GrowingFile, write_whole
from retinaface_edge.runtime.io.text import json_line, printable
from retinaface_edge.runtime.ops.postprocess import Face, Faces

from .arguments import Verbs, add_verb, positive, share
from .exit_codes import BAD_INPUT, GOOD, SOURCE_ENDED, fail
from .progress import say
from .streams import print_json


def detect(options: argparse.Namespace) -> int:
    """`detect`: the faces of pictures, or of a video, a camera or a stream."""
    from retinaface_edge.runtime.io.frame_source import is_video

    bundle = Bundle.load(options.bundle)
    if any(is_video(str(source)) for source in options.images):
        return _detect_video(options, bundle)
    return _detect_pictures(options, bundle)


def _detect_pictures(options: argparse.Namespace, bundle: Bundle) -> int:
    from retinaface_edge.runtime.detector import Detector
    from retinaface_edge.runtime.io.draw import draw_faces
    from retinaface_edge.runtime.io.images import find_images, read_image

    paths = find_images([Path(image) for image in options.images])
    if options.mesh_format and not options.mesh_output:
        raise ImageError("--mesh-format needs --mesh-output DIR, the folder to write to")
    mesh = options.mesh or options.mesh_output is not None
    detector = Detector.load(bundle, options.backend, options.precision, options.threads)
    for folder in (options.draw, options.mesh_output):
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    with _json_lines(options.json) as write:
        for path, drawing in zip(paths, _drawings(paths, options.draw), strict=True):
            try:
                frame = read_image(path)
                faces = detector.detect(frame, options.score_threshold, mesh=mesh)
                if options.mesh_output:
                    _write_meshes(options.mesh_output, options.mesh_format or "obj", path, frame, faces)
                if drawing:
                    draw_faces(frame, faces, drawing)
            except ImageError as error:
                fail(str(error))
                failed += 1
                continue
            height, width = frame.shape[:2]
            write(_record(path, width, height, faces))
            if options.json != "-":
                print(_sentence(path, width, height, faces))
            if drawing and options.json != "-":
                print(f"  drawn: {printable(drawing)}")
    return BAD_INPUT if failed else GOOD


def _detect_video(options: argparse.Namespace, bundle: Bundle) -> int:
    from retinaface_edge.runtime.detector import Detector
    from retinaface_edge.runtime.io.frame_source import Stream
    from retinaface_edge.runtime.video import Drawing, detect_video

    if len(options.images) > 1:
        raise ImageError("give one video, camera or stream at a time; run detect once for each")
    source, output = options.images[0], None
    if options.draw:
        options.draw.mkdir(parents=True, exist_ok=True)
        output = options.draw / f"{Path(source).stem if Path(source).is_file() else 'video'}.mp4"
        if output.exists() and Path(source).is_file() and output.samefile(source):
            raise ImageError(f"--draw would overwrite {source}; give another folder")
    stream = Stream(source, options.reconnect, say)
    with (
        Detector.load(bundle, options.backend, options.precision, options.threads) as detector,
        _json_lines(options.json) as write,
    ):
        report = detect_video(
            detector,
            stream,
            lambda index, faces: write({"frame": index, "faces": _faces(faces)}),
            Drawing(output, options.show),
            options.score_threshold,
            options.frames,
            options.mesh,
        )
        if report.whole:
            write({"frames": report.frames, "promised": report.promised, "ended": report.ended})
    print(report, file=sys.stderr if options.json == "-" else sys.stdout)
    if output and options.json != "-":
        print(f"  drawn: {printable(output)}")
    if report.ended:
        fail(report.ended)
        return SOURCE_ENDED
    return GOOD


@contextmanager
def _json_lines(target: str | None) -> Iterator[Callable[[Any], None]]:
    """What writes one JSON line as it comes: to standard output for `-`, to the file `target`, or nowhere.

    Whatever ends the run, the lines until then are in the file; the file that was there before stays if there are none.
    """
    if target is None:
        yield lambda value: None
    elif target == "-":
        yield print_json
    else:
        file = GrowingFile(Path(target))
        done = False
        try:
            yield lambda value: file.line(json_line(value))
            done = True
        finally:
            file.close(empty=done)


def add_detect(verbs: Verbs) -> None:
    """Add the verb and its arguments."""
    verb = add_verb(
        verbs,
        "detect",
        detect,
        "find faces in pictures or video",
        "detect bundle photo.jpg --draw out --json faces.jsonl",
    )
    verb.add_argument("bundle", type=Path)
    verb.add_argument(
        "images",
        nargs="+",
        metavar="SOURCE",
        help="JPEG or PNG files or folders, or one video file, camera index or URL",
    )
    verb.add_argument("--backend", choices=BACKENDS, help="default: the choice of bench --store, or the best installed")
    verb.add_argument("--precision", choices=PRECISIONS, help="default: the choice of bench --store, or int8")
    verb.add_argument("--threads", type=positive, default=1, help="default: %(default)s")
    verb.add_argument(
        "--score-threshold", type=share, default=0.5, help="lowest score of a face, 0 to 1 (default: %(default)s)"
    )
    verb.add_argument("--json", metavar="FILE", help="write one JSON line per picture or frame; - for standard output")
    verb.add_argument("--draw", type=Path, metavar="DIR", help="write pictures or video with the faces drawn")
    verb.add_argument("--mesh", action="store_true", help="also find the 3D mesh of each face, and draw it")
    verb.add_argument("--mesh-output", type=Path, metavar="DIR", help="write one mesh file per face")
    verb.add_argument("--mesh-format", choices=("obj", "ply", "json"), help="format of those files (default: obj)")
    verb.add_argument("--show", action="store_true", help="show a video or camera in a window")
    verb.add_argument(
        "--reconnect", action="store_true", help="open a camera or stream again whenever it is lost or absent"
    )
    verb.add_argument("--frames", type=positive, help="stop a video, camera or stream after this many frames")


def _drawings(paths: Sequence[Path], folder: Path | None) -> list[Path | None]:
    """Where each picture is drawn to; pictures of the same name from different folders get a number."""
    if folder is None:
        return [None] * len(paths)
    taken: set[Path] = set()
    drawings: list[Path | None] = []
    for path in paths:
        target, number = folder / f"{path.stem}.png", 1
        while target in taken:
            number += 1
            target = folder / f"{path.stem}-{number}.png"
        taken.add(target)
        drawings.append(target)
    return drawings


def _record(path: Path, width: int, height: int, faces: Faces) -> dict[str, Any]:
    return {"image": str(path), "width": width, "height": height, "faces": _faces(faces)}


def _faces(faces: Faces) -> list[dict[str, Any]]:
    return [_face(face) for face in faces]


def _face(face: Face) -> dict[str, Any]:
    record = {"score": face.score, "box": list(face.box), "landmarks": [list(point) for point in face.landmarks]}
    if face.vertices is None:
        return record
    from retinaface_edge.runtime.mesh.branch import head_pose

    return {**record, "vertices": face.vertices.tolist(), "pose": head_pose(face.vertices)._asdict()}


def _sentence(path: Path, width: int, height: int, faces: Faces) -> str:
    count = f"{len(faces)} face{'' if len(faces) == 1 else 's'}"
    boxes = "".join(f"\n  {face.score:.3f} at " + ", ".join(f"{value:.0f}" for value in face.box) for face in faces)
    return f"{printable(path)} ({width}x{height}): {count}{boxes}"


def _write_meshes(folder: Path, kind: str, path: Path, frame: Any, faces: Faces) -> None:
    from retinaface_edge.runtime.mesh.files import mesh_files

    folder.mkdir(parents=True, exist_ok=True)
    stem = printable(path.stem).replace("\\", "_")  # the files name each other, in UTF-8 and on one line
    for index, face in enumerate(faces):
        assert face.vertices is not None
        for name, content in mesh_files(kind, f"{stem}-{index}", face.vertices, frame).items():
            write_whole(folder / name, content)
