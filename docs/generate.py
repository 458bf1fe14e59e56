"""Generates parts of the documentation: pictures from the demo's model, and the page of commands.

    python docs/generate.py

Writes `docs/images/*.svg` and `docs/reference/commands.md`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import matplotlib

matplotlib.use("svg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.patches import Rectangle

from retinaface_edge.calibration.calibrate import Calibration, calibrate
from retinaface_edge.calibration.dataset.image_set import image_set
from retinaface_edge.calibration.dataset.synthetic_scenes import portrait, scenes
from retinaface_edge.calibration.range_estimators import ESTIMATORS
from retinaface_edge.calibration.recipe import read_recipe
from retinaface_edge.cli.main import command_line, main
from retinaface_edge.export.checkpoints.demo import demo_checkpoint
from retinaface_edge.export.graph.export import to_onnx
from retinaface_edge.export.models.deploy import Deploy
from retinaface_edge.runtime import Detector, Spec
from retinaface_edge.runtime.ops.postprocess import QuantParams

FOLDER = Path(__file__).parent
IMAGES = 24
BLUE, ORANGE, GREY = "#3367b0", "#d9730d", "#8a8f98"
LAYER = "backbone.stages.0.1.pointwise"
SETTINGS = {"svg.hashsalt": "retinaface-edge", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def draw() -> None:
    """Draw all pictures. The same versions of packages give the same bytes."""
    (FOLDER / "images").mkdir(exist_ok=True)
    spec = Spec()
    checkpoint = demo_checkpoint()
    model = to_onnx(Deploy(checkpoint.model, spec).eval(), spec)
    calibration = calibrate(model, spec, image_set(spec, scenes(IMAGES), "scenes"), read_recipe("balanced"))
    with plt.rc_context(SETTINGS):
        _steps()
        _ranges(calibration)
        _leaky(calibration)
        _faces()


def _steps() -> None:
    """Real values on the horizontal axis, the same values after quantisation on the vertical one."""
    quant = QuantParams(0.4, 5)
    real = np.linspace(-3.2, 4.8, 2000)
    integers = np.clip(np.rint(real / quant.scale) + quant.zero_point, 0, 15)
    figure, axes = plt.subplots(figsize=(5.2, 3))
    axes.plot(real, real, color=GREY, linewidth=1, label="real value")
    axes.step(real, (integers - quant.zero_point) * quant.scale, color=BLUE, where="mid", label="quantised value")
    axes.axhline(0, color=GREY, linewidth=0.5)
    axes.set(xlabel="value", ylabel="value after quantisation", title="16 steps: scale 0.4, zero point 5")
    axes.legend(frameon=False)
    _save(figure, "steps")


def _ranges(calibration: Calibration) -> None:
    """The values of one tensor on the calibration images, and the ranges that estimators choose for it."""
    name = f"{LAYER}.activation"
    observation = calibration.tensors[name]
    values = observation.sample.ravel()
    figure, axes = plt.subplots(figsize=(6.4, 3.2))
    counts, _, _ = axes.hist(values, bins=160, color=GREY, log=True)
    for place, (estimator, estimate) in enumerate(ESTIMATORS.items()):
        found = estimate(observation)
        height = counts.max() * 2.5 * 2.2**place
        axes.plot([found.low, found.high], [height, height], color=BLUE, linewidth=2, marker="|", markersize=8)
        axes.text(found.high, height, f"  {estimator}: step {found.quant.scale:.4f}", va="center", fontsize=8)
    axes.set(xlabel=f"values of {name}, {IMAGES} images", ylabel="count (log)")
    axes.set_xlim(None, values.max() * 1.6)
    _save(figure, "ranges")


def _leaky(calibration: Calibration) -> None:
    """Before and after a LeakyReLU: two distributions, two sets of quantisation parameters."""
    figure, rows = plt.subplots(2, 1, figsize=(6.4, 3.6), sharex=True)
    for axes, name, title in (
        (rows[0], LAYER, "before LeakyReLU: integers in TFLite"),
        (rows[1], f"{LAYER}.activation", "after LeakyReLU: integers in every backend"),
    ):
        found = calibration.ranges[name]
        values = calibration.tensors[name].sample.ravel()
        axes.hist(values, bins=200, color=GREY, log=True)
        axes.axvspan(found.low, found.high, color=BLUE, alpha=0.12)
        axes.set_title(f"{title}; step {found.quant.scale:.4f}, zero point {found.quant.zero_point}", fontsize=9)
        axes.set_ylabel("count (log)")
    rows[1].set_xlabel("value; shaded: the chosen range, outside of which values are clipped")
    _save(figure, "leaky")


def _faces() -> None:
    """The astronaut's face as FP32 and INT8 find it."""
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        if main(["build", "--output", str(bundle), "--images", str(IMAGES)]):
            raise SystemExit("the bundle for the pictures could not be built")
        frame = portrait()
        found = {p: Detector.load(bundle, "openvino", p).detect(frame)[0] for p in ("fp32", "int8")}
    figure, axes = plt.subplots(figsize=(3.6, 4))
    axes.imshow(frame[20:220, 130:330, ::-1], extent=(130, 330, 220, 20))
    for (precision, face), colour, style in zip(found.items(), (BLUE, ORANGE), ("-", "--"), strict=True):
        x1, y1, x2, y2 = face.box
        box = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=colour, linestyle=style, linewidth=2)
        axes.add_patch(box)
        axes.plot(*np.array(face.landmarks).T, "o", color=colour, markersize=4 if precision == "fp32" else 2)
        axes.plot([], [], color=colour, linestyle=style, label=f"{precision.upper()}, score {face.score:.3f}")
    axes.axis("off")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, -0.12), ncol=2, frameon=False)
    _save(figure, "faces")


def _save(figure: plt.Figure, name: str) -> None:
    figure.tight_layout()
    figure.savefig(FOLDER / "images" / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


def commands() -> str:
    """The page of commands: what each prints with --help."""
    os.environ["COLUMNS"] = "100"
    parser = command_line()
    pages = ["# Command line", "", "```text", parser.format_help().rstrip(), "```", ""]
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for name, verb in verbs.choices.items():
        pages += [f"## {name}", "", "```text", verb.format_help().rstrip(), "```", ""]
    return "\n".join(pages)


if __name__ == "__main__":
    (FOLDER / "reference" / "commands.md").write_text(commands(), encoding="utf-8")
    draw()
