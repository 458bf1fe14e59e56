"""Self-check: whether a detector's boxes are plausible, and which known setting would make them so.

What a checkpoint's names cannot tell (anchors, mean, deviation, colour order, activation) shows in what the network
finds. With wrong anchors or activations, neighbouring anchors disagree about the one face that they see; with a wrong
normalisation a network finds no face, or the same whatever the picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from retinaface_edge.calibration.graph.session import session
from retinaface_edge.runtime.errors import RetinaFaceEdgeError
from retinaface_edge.runtime.ops.candidates import BOX, LANDMARKS, find_candidates
from retinaface_edge.runtime.ops.iou import iou
from retinaface_edge.runtime.ops.landmarks import decode_landmarks
from retinaface_edge.runtime.ops.letterbox import letterbox, letterbox_for
from retinaface_edge.runtime.ops.postprocess import decode_boxes
from retinaface_edge.runtime.ops.quantization import QuantParams
from retinaface_edge.runtime.ops.scores import sigmoid
from retinaface_edge.runtime.spec import Colour, Spec

from .checkpoints.interpretation import KNOWN_ANCHORS, NORMALISATIONS, Anchors, Normalisation, is_leaky

THRESHOLD = 0.5
MOST_CANDIDATES = 1000
PORTRAIT_FACE = (175.0, 62.0, 273.0, 189.0)
"""The face on scikit-image's astronaut, in pixels of the photograph: x1, y1, x2, y2."""
FOUND = 0.35
"""IoU from which a box lies on a known face: what people annotate as a face differs by as much."""
SURE, IMPOSSIBLE = 0.8, 0.5
"""Agreement of neighbouring anchors: above the first no other setting is tried, below the second it is no detector's.

Measured on public networks with their own anchors: 0.86 to 0.96, 0.60 to 0.78 for the weakest; with others' anchors:
0.59 to 0.73, and 0.44 to 0.62 for the weakest.
"""
BETTER = 0.1
"""By so much must another setting's agreement exceed the present one's."""
AS_STRONG = 0.5
"""Share of the present candidates' scores that another setting must keep."""
WORTH_OF_ANOTHER_CHANGE = 0.7
LEAKY = "LeakyRelu"
FEWEST_PAIRS = 10
ASPECTS = (0.6, 2.0)
LEAST_INSIDE = 0.8
INSIDE_MARGIN = 0.15
"""Share of a box's sides by which its landmarks may lie outside."""
SAME = 0.8
"""Share of equal candidates on a photograph and on an empty picture from which a network is taken as dead."""


class SelfCheckError(RetinaFaceEdgeError):
    """A detector whose boxes are not plausible under the settings that it is to be built with."""


@dataclass(frozen=True, eq=False)
class Photograph:
    """A network input, uint8 (1, H, W, 3), and the box of a face on it where one is known, in pixels of the input."""

    pixels: NDArray[np.uint8]
    face: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Plausibility:
    """What the candidates of all photographs say about a detector.

    `agreement` is the median IoU of the boxes of neighbouring anchors (0 to 1; NaN where there are few), `aspect` the
    median of height / width, `inside` the share of candidates whose landmarks lie in their box, `same` the mean share
    of candidates that an empty picture has as well, `strength` the sum of scores, `missed` the known faces not found.
    """

    photographs: int
    candidates: int
    agreement: float
    aspect: float
    inside: float
    same: float
    strength: float
    missed: int

    @property
    def problems(self) -> tuple[str, ...]:
        """What no detector under its own settings shows, in words; empty for a plausible one."""
        if not self.candidates:
            return (f"it finds no face on {self.photographs} photograph{'s' * (self.photographs != 1)}",)
        checks = (
            (self.same > SAME, "it finds the same on an empty picture as on a photograph"),
            (self.missed > 0, "it does not find the face of the known photograph"),
            (self.agreement < IMPOSSIBLE, f"neighbouring anchors disagree (median IoU {self.agreement:.2f})"),
            (not ASPECTS[0] <= self.aspect <= ASPECTS[1], f"its boxes are {self.aspect:.2g} times as high as wide"),
            (self.inside < LEAST_INSIDE, f"landmarks lie outside {100 * (1 - self.inside):.0f} % of its boxes"),
        )
        return tuple(text for wrong, text in checks if wrong)


@dataclass(frozen=True)
class Setting:
    """What is to be tried, or suggested; None keeps the present anchors or normalisation.

    `leaky` says whether LeakyReLU stays; None where the network has none, or what follows from the anchors is meant.
    """

    anchor_sizes: Anchors | None
    normalisation: Normalisation | None
    leaky: bool | None = None

    @property
    def changes(self) -> int:
        """How many options state it."""
        return sum(value is not None for value in (self.anchor_sizes, self.normalisation, self.leaky))

    @property
    def options(self) -> str:
        """As the command line takes them."""
        words = []
        if self.anchor_sizes is not None:
            words.append("--anchors " + "/".join(",".join(map(str, level)) for level in self.anchor_sizes))
        if self.normalisation is not None:
            mean, std = (
                ",".join(f"{v:g}" for v in values) for values in (self.normalisation.mean, self.normalisation.std)
            )
            words.append(f"--mean {mean} --std {std} --colour {self.normalisation.colour.value}")
        if self.leaky is not None:
            words.append(f"--activation {'leaky-relu' if self.leaky else 'relu'}")
        return " ".join(words)


@dataclass(frozen=True)
class SelfCheck:
    """The verdict: what is seen, what is wrong with it, and the known setting that would make it plausible."""

    seen: Plausibility
    problems: tuple[str, ...]
    suggestion: Setting | None

    def require(self) -> None:
        """Raise `SelfCheckError` unless the detector is plausible."""
        if self.problems:
            advice = (
                f"build it with {self.suggestion.options}"
                if self.suggestion
                else "no known setting makes it plausible; state its own with --anchors, --mean, --std, --colour and "
                "--activation"
            )
            raise SelfCheckError(
                f"the detector's boxes are not plausible: {'; '.join(self.problems)}; {advice}, "
                "or go on with --ignore-self-check"
            )


def self_check(model: onnx.ModelProto, spec: Spec, photographs: Sequence[Photograph]) -> SelfCheck:
    """Judge the FP32 `model` of `spec` on `photographs`, at least one; where it is implausible, try known settings.

    Nothing is raised for an implausible detector: `SelfCheck.require` does that.
    """
    outputs = _outputs(model, spec, photographs)
    seen = plausibility(spec, outputs, photographs)
    if not seen.problems and not seen.agreement < SURE:
        return SelfCheck(seen, (), None)
    improving = [
        (setting, tried)
        for setting, tried in _tried(model, spec, photographs)
        if not tried.problems and _improves(tried, seen)
    ]
    if not improving:
        return SelfCheck(seen, seen.problems, None)
    best, under = max(improving, key=_rank)
    disagree = f"neighbouring anchors disagree (median IoU {seen.agreement:.2f}; {under.agreement:.2f} is possible)"
    return SelfCheck(seen, seen.problems or (disagree,), best)


def known_photograph(spec: Spec) -> Photograph | None:
    """The portrait that installs with scikit-image, and its face; None where it is not installed."""
    from retinaface_edge.calibration.dataset.image_set import CalibrationError
    from retinaface_edge.calibration.dataset.synthetic_scenes import portrait

    try:
        frame = portrait()
    except CalibrationError:
        return None
    pixels = np.empty(spec.input_shape, np.uint8)
    placement = letterbox_for(spec, frame.shape[1], frame.shape[0])
    letterbox(spec, placement, frame, pixels)
    x1, y1, x2, y2 = PORTRAIT_FACE
    across, down = placement.scale_x, placement.scale_y
    return Photograph(pixels, (x1 / across, y1 / down, x2 / across, y2 / down))


def plausibility(
    spec: Spec, outputs: Sequence[Sequence[NDArray[np.float32]]], photographs: Sequence[Photograph]
) -> Plausibility:
    """What the raw `outputs` say under `spec`: those of each photograph, then those of an empty picture."""
    *found, empty = (_decoded(spec, raw) for raw in outputs)
    overlaps = [overlap for candidates in found for overlap in _neighbours(spec, candidates)]
    boxes = np.concatenate([candidates.boxes for candidates in found])
    sides = boxes[:, 2:] - boxes[:, :2]
    inside = np.concatenate([_inside(candidates) for candidates in found])
    same = [_share(candidates.anchors, empty.anchors) for candidates in found if len(candidates.anchors)]
    missed = [
        photograph.face is not None and not np.any(iou(candidates.boxes, np.array([photograph.face])) >= FOUND)
        for photograph, candidates in zip(photographs, found, strict=True)
    ]
    return Plausibility(
        photographs=len(photographs),
        candidates=len(boxes),
        agreement=float(np.median(overlaps)) if len(overlaps) >= FEWEST_PAIRS else float("nan"),
        aspect=float(np.median(sides[:, 1] / sides[:, 0])) if len(boxes) else 1.0,
        inside=float(inside.mean()) if len(boxes) else 1.0,
        same=float(np.mean(same)) if same else 0.0,
        strength=float(sum(candidates.scores.sum() for candidates in found)),
        missed=sum(missed),
    )


@dataclass(frozen=True, eq=False)
class _Candidates:
    """Anchors (n,), scores (n,), boxes (n, 4) and landmarks (n, k, 2) of one picture, in pixels of the input."""

    anchors: NDArray[np.intp]
    scores: NDArray[np.float64]
    boxes: NDArray[np.float64]
    landmarks: NDArray[np.float64]


def _decoded(spec: Spec, raw: Sequence[NDArray[np.float32]]) -> _Candidates:
    mask = np.empty(len(spec.anchors), np.bool_)
    anchors, values = find_candidates(spec, raw, [QuantParams()] * len(raw), THRESHOLD, MOST_CANDIDATES, mask)
    points = values[LANDMARKS : LANDMARKS + 2 * spec.landmarks].T
    landmarks = decode_landmarks(spec, anchors, points) if spec.landmarks else np.zeros((len(anchors), 0, 2))
    return _Candidates(anchors, sigmoid(values[0]), decode_boxes(spec, anchors, values[BOX].T), landmarks)


def _neighbours(spec: Spec, candidates: _Candidates) -> NDArray[np.float64]:
    """IoU of the boxes of every two candidates whose centres are at most one cell of the coarser level apart."""
    centres = spec.anchors[candidates.anchors, :2]
    level = np.searchsorted(spec.level_bounds, candidates.anchors, side="right") - 1
    stride = np.array(spec.strides, np.float64)[level]
    distance = np.abs(centres[:, np.newaxis] - centres).max(axis=2)
    near = np.triu(distance <= np.maximum(stride[:, np.newaxis], stride), k=1)
    return np.asarray(iou(candidates.boxes, candidates.boxes)[near])


def _inside(candidates: _Candidates) -> NDArray[np.bool_]:
    margin = INSIDE_MARGIN * (candidates.boxes[:, 2:] - candidates.boxes[:, :2])
    least = (candidates.boxes[:, :2] - margin)[:, np.newaxis]
    most = (candidates.boxes[:, 2:] + margin)[:, np.newaxis]
    return np.asarray(((candidates.landmarks >= least) & (candidates.landmarks <= most)).all(axis=(1, 2)))


def _share(found: NDArray[np.intp], empty: NDArray[np.intp]) -> float:
    return len(np.intersect1d(found, empty)) / len(np.union1d(found, empty))


def _outputs(model: onnx.ModelProto, spec: Spec, photographs: Sequence[Photograph]) -> list[list[NDArray[np.float32]]]:
    """Raw outputs for each photograph, and at last for an empty picture of the padding's colour."""
    running = session(model)
    names = [output.name for output in spec.outputs]
    empty = np.empty(spec.input_shape, np.uint8)
    empty[:] = spec.padding_colour
    pictures = [*(photograph.pixels for photograph in photographs), empty]
    return [running.run(names, {spec.input_name: pixels}) for pixels in pictures]


def _tried(
    model: onnx.ModelProto, spec: Spec, photographs: Sequence[Photograph]
) -> Iterator[tuple[Setting, Plausibility]]:
    """Every known setting but the present one, and what is seen under it."""
    present = Normalisation(spec.mean, spec.std, spec.colour)
    counts = tuple(len(level) for level in spec.anchor_sizes)
    fitting = [sizes for sizes in KNOWN_ANCHORS if tuple(map(len, sizes)) == counts and sizes != spec.anchor_sizes]
    has_leaky = any(node.op_type == LEAKY for node in model.graph.node)
    normalisations = (None, *(other for other in NORMALISATIONS if other != present))
    for leaky, normalisation in product((True, False) if has_leaky else (None,), normalisations):
        activated = rectified(model) if leaky is False else model
        changed = activated if normalisation is None else renormalised(activated, spec, normalisation)
        outputs = _outputs(changed, spec, photographs)
        for sizes in (None, *fitting):
            implied = True if sizes is None else is_leaky(sizes)
            setting = Setting(sizes, normalisation, None if leaky in (None, implied) else leaky)
            if not setting.changes:
                continue
            under = spec if sizes is None else replace(spec, anchor_sizes=sizes)
            yield setting, plausibility(under, outputs, photographs)


def _improves(tried: Plausibility, seen: Plausibility) -> bool:
    if seen.problems and not seen.agreement < SURE:
        return True
    return tried.agreement > seen.agreement + BETTER and tried.strength >= AS_STRONG * seen.strength


def _rank(tried: tuple[Setting, Plausibility]) -> float:
    """The best of plausible settings: its candidates are many, sure, and agree; one change is better than two."""
    setting, seen = tried
    worth = seen.strength * (0.0 if np.isnan(seen.agreement) else seen.agreement)
    return float(worth * WORTH_OF_ANOTHER_CHANGE ** (setting.changes - 1))


def rectified(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network with ReLU in place of LeakyReLU."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for node in changed.graph.node:
        if node.op_type == LEAKY:
            node.CopyFrom(helper.make_node("Relu", node.input, node.output, name=node.name))
    return changed


def renormalised(model: onnx.ModelProto, spec: Spec, other: Normalisation) -> onnx.ModelProto:
    """The network of `spec` as it is under another normalisation: its input is brought there and back.

    `model` reads uint8 pixels by a Cast; what follows it, (pixel − mean) / std in the order of `spec.colour`, stays.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    nodes = list(changed.graph.node)
    place = next(i for i, node in enumerate(nodes) if spec.input_name in node.input)
    value = nodes[place].output[0]
    order, wanted = _order(spec.colour), _order(other.colour)
    index, scale, shift = np.empty(3, np.int64), np.empty(3, np.float32), np.empty(3, np.float32)
    for k, (channel, source) in enumerate(zip(order, wanted, strict=True)):
        index[channel] = source
        scale[channel] = spec.std[k] / other.std[k]
        shift[channel] = spec.mean[k] - other.mean[k] * spec.std[k] / other.std[k]
    nodes[place].output[0] = f"{value}.pixels"
    added = [
        helper.make_node("Gather", [f"{value}.pixels", f"{value}.order"], [f"{value}.ordered"], axis=3),
        helper.make_node("Mul", [f"{value}.ordered", f"{value}.scale"], [f"{value}.scaled"]),
        helper.make_node("Add", [f"{value}.scaled", f"{value}.shift"], [value]),
    ]
    del changed.graph.node[:]
    changed.graph.node.extend([*nodes[: place + 1], *added, *nodes[place + 1 :]])
    for name, array in (("order", index), ("scale", scale), ("shift", shift)):
        changed.graph.initializer.append(numpy_helper.from_array(array, f"{value}.{name}"))
    return changed


def _order(colour: Colour) -> tuple[int, int, int]:
    """The BGR channel that is the network's first, second and third."""
    return (0, 1, 2) if colour is Colour.BGR else (2, 1, 0)
