"""The verb `detect`: the faces of pictures, or of a video, a camera or a stream."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from retinaface_edge.runtime.backends import BACKENDS
from retinaface_edge.runtime.bundle.bundle import PRECISIONS, Bundle
from retinaface_edge.runtime.errors import ImageError
from retinaface_edge.runtime.io.atomic import GrowingFile
from retinaface_edge.runtime.ops.faces import Faces
from retinaface_edge.runtime.records import to_json
from retinaface_edge.runtime.text import json_line, printable

from .arguments import Verbs, add_camera, add_input_size, add_verb, camera_options, load_detector, positive, share
from .exit_codes import BAD_INPUT, GOOD, SOURCE_ENDED, fail
from .json_output import DetectLine, DrawnVideo, EndLine, FrameLine, PictureLine, face_entries
from .outputs import FaceTable, names_of, sentence, write_blurred, write_crops, write_meshes
from .process.streams import print_json
from .progress import say

if TYPE_CHECKING:
    from retinaface_edge.runtime.detector import Detector
    from retinaface_edge.runtime.io.video_writer import WrittenVideo


def detect(options: argparse.Namespace) -> int:
    """`detect`: the faces of pictures, or of a video, a camera or a stream."""
    from retinaface_edge.runtime.io.frame_source import is_video
    from retinaface_edge.runtime.io.picture_files import picture_files

    bundle = Bundle.load(options.bundle)
    if options.mesh_format and not options.mesh_output:
        raise ImageError("--mesh-format needs --mesh-output DIR, the folder to write to")
    for folder in (options.draw, options.blur, options.crops):
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
    if any(is_video(str(source)) for source in options.images):
        return _detect_video(options, bundle)
    if options.track:
        raise ImageError("--track needs a video, a camera or a stream; pictures have no order in time")
    files = picture_files(options.images)
    if files.skipped and not options.quiet:
        print(f"retinaface-edge: {files.skipped_text}", file=sys.stderr)
    with load_detector(options, bundle) as detector:
        return _detect_pictures(options, detector, list(files.pictures))


def _detect_pictures(options: argparse.Namespace, detector: Detector, paths: list[Path]) -> int:
    from retinaface_edge.runtime.io.images import read_image
    from retinaface_edge.runtime.large_frames import detect_in_tiles

    mesh = options.mesh or options.mesh_output is not None
    table = FaceTable(detector.spec.landmarks, ["image"])
    failed = 0
    with _json_lines(options.json) as write:
        for path, name in zip(paths, names_of(paths), strict=True):
            try:
                frame = read_image(path)
                height, width = frame.shape[:2]
                if options.tiles:
                    faces = detect_in_tiles(detector, frame, options.score_threshold, mesh=mesh)
                else:
                    faces = detector.detect(frame, options.score_threshold, mesh=mesh)
                faces = faces.clipped(width, height) if options.clip else faces
                _write_pictures(options, path, name, frame, faces)
            except ImageError as error:
                fail(str(error))
                failed += 1
                continue
            table.add([printable(path)], faces)
            write(PictureLine(str(path), width, height, face_entries(faces)))
            if options.json != "-" and not options.quiet:
                print(sentence(path, width, height, faces))
                if options.draw:
                    print(f"  drawn: {printable(options.draw / name)}.png")
    if options.csv:
        table.write(options.csv)
    return BAD_INPUT if failed else GOOD


def _write_pictures(options: argparse.Namespace, path: Path, name: str, frame: NDArray[np.uint8], faces: Faces) -> None:
    if options.mesh_output:
        write_meshes(options.mesh_output, options.mesh_format or "obj", path, frame, faces)
    if options.crops:
        write_crops(options.crops, name, frame, faces)
    if options.blur:
        write_blurred(options.blur / f"{name}.png", frame, faces)
    if options.draw:
        from retinaface_edge.runtime.draw import draw_faces

        draw_faces(frame, faces, options.draw / f"{name}.png")


def _detect_video(options: argparse.Namespace, bundle: Bundle) -> int:
    from retinaface_edge.runtime.io.frame_source import Stream
    from retinaface_edge.runtime.video import DetectionOptions, Drawing, FrameFaces, detect_video

    if len(options.images) > 1:
        raise ImageError("give one video, camera or stream at a time; run detect once for each")
    stream = Stream(options.images[0], options.reconnect, say, camera_options(options))
    output = _video_output(options)
    table = FaceTable(bundle.spec.landmarks, ["frame", "time"])
    drawing = Drawing(output, options.show, blur=options.blur is not None)
    settings = DetectionOptions(options.score_threshold, options.mesh, options.tiles, options.track)
    with (
        load_detector(options, bundle) as detector,
        _json_lines(options.json) as write,
        ExitStack() as last,
    ):
        if options.csv:  # a camera is stopped by Ctrl-C: the faces so far are written then
            last.callback(table.write, options.csv)

        def each(seen: FrameFaces) -> None:
            height, width = seen.frame.shape[:2]
            faces = seen.faces.clipped(width, height) if options.clip else seen.faces
            if options.crops:
                write_crops(options.crops, f"{seen.index:06}", seen.frame, faces)
            if options.csv:
                table.add([seen.index, round(seen.seconds, 3)], faces, seen.ids)
            write(FrameLine(seen.index, round(seen.seconds, 3), width, height, face_entries(faces, seen.ids)))

        report = detect_video(detector, stream, each, drawing, settings, options.frames)
        if report.complete:
            write(EndLine(report.frames, report.promised, report.ended, _drawn(report.written)))
    if not options.quiet:
        print(report, file=sys.stderr if options.json == "-" else sys.stdout)
        if output and options.json != "-":
            print(f"  drawn: {printable(output)}, {report.written}")
    if report.ended:
        fail(report.ended)
        return SOURCE_ENDED
    return GOOD


def _drawn(video: WrittenVideo | None) -> DrawnVideo | None:
    if video is None:
        return None
    return DrawnVideo(video.codec, video.frames, video.width, video.height, video.rate)


def _video_output(options: argparse.Namespace) -> Path | None:
    """The video that is written with faces drawn or covered; None for none."""
    if options.draw and options.blur:
        raise ImageError("a video is written with faces drawn or covered: give --draw or --blur, not both")
    folder, source = options.draw or options.blur, options.images[0]
    if folder is None:
        return None
    output = Path(folder) / f"{Path(source).stem if Path(source).is_file() else 'video'}.mp4"
    if output.exists() and Path(source).is_file() and output.samefile(source):
        raise ImageError(f"{'--draw' if options.draw else '--blur'} would overwrite {source}; give another folder")
    return output


@contextmanager
def _json_lines(target: str | None) -> Iterator[Callable[[DetectLine], None]]:
    """What writes one JSON line as it comes: to standard output for `-`, to the file `target`, or nowhere.

    Whatever ends the run, the lines until then are in the file; the file that was there before stays if there are none.
    """
    if target is None:
        yield lambda line: None
    elif target == "-":
        yield lambda line: print_json(to_json(line))
    else:
        file = GrowingFile(Path(target))
        done = False
        try:
            yield lambda line: file.line(json_line(to_json(line)))
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
        help="pictures, folders or lists of paths (.txt), or one video file, camera index, picamera or URL",
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
    verb.add_argument("--json", metavar="FILE", help="write one JSON line per picture or frame; - for standard output")
    verb.add_argument("--draw", type=Path, metavar="DIR", help="write pictures or video with the faces drawn")
    verb.add_argument("--blur", type=Path, metavar="DIR", help="write pictures or video with the faces covered")
    verb.add_argument("--crops", type=Path, metavar="DIR", help="write each face, aligned, 112x112 pixels")
    verb.add_argument("--csv", type=Path, metavar="FILE", help="write one CSV row per face")
    verb.add_argument("--clip", action="store_true", help="clip boxes to the frame")
    verb.add_argument("--tiles", action="store_true", help="search in overlapping tiles, for many small faces")
    verb.add_argument("--track", action="store_true", help="give faces ids across the frames of a video")
    verb.add_argument("--mesh", action="store_true", help="also find the 3D mesh of each face, and draw it")
    verb.add_argument("--mesh-output", type=Path, metavar="DIR", help="write one mesh file per face")
    verb.add_argument("--mesh-format", choices=("obj", "ply", "json"), help="format of those files (default: obj)")
    verb.add_argument("--show", action="store_true", help="show a video or camera in a window")
    verb.add_argument("--reconnect", action="store_true", help="reopen a camera or stream when it is lost or missing")
    add_camera(verb)
    verb.add_argument("--frames", type=positive, help="stop a video, camera or stream after this many frames")
