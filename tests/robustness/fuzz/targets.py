"""What is fuzzed: a function of bytes for every parser and every public function of the runtime.

A target returns or raises a `RetinaFaceEdgeError`; whatever else it raises is a fault. `SEEDS` begin each corpus.
"""

from __future__ import annotations

import atexit
import io
import json
import shutil
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from edits import as_json, edited
from files import EDITS, FILE_TARGETS, bundle_targets
from graphs import QUANT_PARAMS, others, residual
from measurements import EDITS as MEASURED
from measurements import TARGETS as MEASUREMENTS
from measurements import embedder, report
from onnx import TensorProto, helper
from PIL import Image
from state_dicts import DETECTORS, onnx_detector, tensors
from state_dicts import EDITS as STATE_EDITS

from retinaface_edge.benchmarks.accuracy.datasets import read_boxes
from retinaface_edge.benchmarks.accuracy.result import EvalResult
from retinaface_edge.benchmarks.drift.result import DriftResult
from retinaface_edge.benchmarks.gates.gate import apply_gate, read_gate
from retinaface_edge.benchmarks.results import ImageSet, read_result
from retinaface_edge.calibration.recipe import read_recipe
from retinaface_edge.export.bundle_writer import Content, write_bundle
from retinaface_edge.runtime import Bundle, Detector, Spec
from retinaface_edge.runtime.artifact import ArtifactId, Backend, Precision
from retinaface_edge.runtime.bundle.bundle import MANIFEST, serialise
from retinaface_edge.runtime.bundle.model_card import model_card
from retinaface_edge.runtime.bundle.sbom import sbom
from retinaface_edge.runtime.io.images import read_image
from retinaface_edge.runtime.mesh.branch import describe, head_pose, place
from retinaface_edge.runtime.mesh.files import FORMATS, mesh_files
from retinaface_edge.runtime.ops.align import aligned
from retinaface_edge.runtime.ops.letterbox import letterbox_for
from retinaface_edge.runtime.ops.postprocess import QuantParams, postprocess
from retinaface_edge.runtime.spec import BoxCoding, Colour, Mesh, ScoreCoding

FIXTURES = Path(__file__).parents[2] / "fixtures"
MEMORY = Path("/dev/shm")
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-", dir=MEMORY if MEMORY.is_dir() else None))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
SMALL = Spec(64, 64)
DISTANCES = Spec(
    64,
    64,
    mean=(127.5,) * 3,
    std=(128,) * 3,
    colour=Colour.RGB,
    variances=(1, 1),
    origin=0.0,
    box_coding=BoxCoding.DISTANCES,
)
FACE_OBJECT = Spec(
    64, 64, anchor_sizes=((8,), (16,), (32,)), variances=(1, 1), score=ScoreCoding.FACE_OBJECT, landmarks=0
)
DENSE = Spec(64, 64, mesh=Mesh(channels=4, batch=2, vertices=468))
CONTRACTS = (SMALL, DENSE, DISTANCES, FACE_OBJECT)
"""Points of the contract that published detectors have: one of each coding."""


def _written(name: str, content: bytes) -> Path:
    path = FOLDER / name
    path.write_bytes(content)
    return path


# Manifests and bundles


def _valid_manifest() -> dict[str, Any]:
    provenance = {
        "checkpoint": {"family": "yakhyo", "sha256": "0" * 64, "width": 0.25, "channels": 64, "licence": "MIT"},
        "calibration": {"sha256": "1" * 64, "images": 3, "skipped": []},
        "opset": 18,
        "tools": {"numpy": "2"},
        "licences": {"numpy": "BSD"},
    }
    files = {"onnx/model.onnx": b"abc", "onnx/mesh.onnx": b"def"}
    artifact = ArtifactId(Backend.ONNXRUNTIME, Precision.FP32)
    content = Content(DENSE, files, {artifact: ["onnx/model.onnx"]}, provenance, {artifact: ["onnx/mesh.onnx"]})
    folder = FOLDER / "bundle"
    write_bundle(content, folder)
    return dict(json.loads((folder / MANIFEST).read_text()))


_MANIFEST = _valid_manifest()


def manifest(data: bytes) -> None:
    """`Bundle.load`, `verify`, the bill of materials and the model card; edits get their right digest."""
    folder = FOLDER / "bundle"
    content = data[1:]
    if data and data[0] % 2 == 0:
        changed = edited(_MANIFEST, data[1:])
        try:
            content = serialise(changed) if isinstance(changed, dict) else json.dumps(changed).encode()
        except (ValueError, UnicodeError):
            return
    (folder / MANIFEST).write_bytes(content)
    bundle = Bundle.load(folder)
    for artifact in (*bundle.artifacts, *bundle.meshes):
        for file in artifact.files:
            bundle.read(file)
    sbom(bundle), model_card(bundle)
    bundle.verify()


def spec(data: bytes) -> None:
    """`Spec.from_json`, and what is worked out from a spec that it accepts."""
    changed = edited(CONTRACTS[len(data) % len(CONTRACTS)].to_json(), data)
    read = Spec.from_json(changed)
    assert len(read.anchors) == read.level_bounds[-1]
    assert all(min(output.shape) >= 1 for output in (*read.outputs, *read.features))
    assert Spec.from_json(json.loads(json.dumps(read.to_json()))) == read


# Files of users

_GATE = {
    "format_version": 1,
    "rules": [
        {"name": "a", "floor": "tensors", "figure": "sqnr_db", "at_least": 20, "artifact": "* int8"},
        {"name": "b", "floor": "detections", "figure": "missed", "at_most": 0, "least_size": 20, "least_score": 0.5},
    ],
}


_NOTHING = DriftResult(
    kind="drift",
    format_version=2,
    environment={},
    networks=(),
    input_px=(64, 64),
    score_threshold=0.5,
    images=ImageSet(0, ""),
    comparisons=(),
    worst_images=(),
)


def gate(data: bytes) -> None:
    """`read_gate`, and applying it to a result with nothing in it."""
    apply_gate(read_gate(_written("gate.json", as_json(_GATE, data))), _NOTHING)


_RECIPE = json.loads(json.dumps(read_recipe("balanced").to_json()))


def recipe(data: bytes) -> None:
    """`read_recipe`, and its patterns."""
    read = read_recipe(str(_written("recipe.json", as_json(_RECIPE, data))))
    read.is_float("backbone.stem"), read.is_symmetric("score.0")


_BOXES = [{"file": "a.jpg", "boxes_xyxy": [[1, 2, 30, 40]], "landmarks": [[[1, 2]] * 5]}]


def boxes(data: bytes) -> None:
    """`read_boxes`: annotations as a plain list."""
    read_boxes(_written("boxes.json", as_json(_BOXES, data)))


_RESULT = json.loads((FIXTURES / "results_v1" / "eval.json").read_text())


def result(data: bytes) -> None:
    """`read_result`: what `drift` and `eval` wrote."""
    read_result(_written("result.json", as_json(_RESULT, data)), DriftResult, EvalResult)


# Pictures and frames


def picture(data: bytes) -> None:
    """`read_image`."""
    frame = read_image(Path("picture"), data)
    assert frame.dtype == np.uint8
    assert frame.ndim == 3


def _filled(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An array of that shape, the values repeated."""
    size = int(np.prod(shape))
    return np.tile(values, -(-size // len(values)))[:size].reshape(shape)


class _Silent:
    """A network that gives the same raw values whatever it sees."""

    def __init__(self) -> None:
        self.quant_params = (QuantParams(),) * len(SMALL.outputs)

    def run(self, image: np.ndarray) -> list[np.ndarray]:
        return [np.full(output.shape, -9.0, np.float32) for output in SMALL.outputs]


_DETECTOR = Detector(SMALL, _Silent())
_KINDS = (np.uint8, np.uint8, np.uint8, np.int8, np.float32, np.uint16, np.bool_)


def frame(data: bytes) -> None:
    """`Detector.detect` on arrays of every dtype, number of axes, shape and stride."""
    head, body = (data + bytes(16))[:16], data[16:] or b"\0"
    kind, axes = _KINDS[head[0] % len(_KINDS)], head[1] % 5
    shape = tuple(int(size) % 97 for size in head[2 : 2 + axes])
    if axes == 3 and head[7] % 4:
        shape = (*shape[:2], 3)
    array = _filled(np.frombuffer(body, np.uint8), shape).astype(kind)
    if axes >= 2 and head[8] % 2:
        array = array[:: 1 + head[9] % 3, :: -1 if head[10] % 2 else 1]
    scores = np.frombuffer(head[11:15], np.float32)[0]
    faces = _DETECTOR.detect(array, float(scores) if head[15] % 2 else 0.5, rgb=bool(head[15] % 3))
    assert len(faces) == 0 or float(scores) < 1e-3


def outputs(data: bytes) -> None:
    """`postprocess` and `aligned` on raw outputs of any value, float and integer."""
    head, body = (data + bytes(8))[:8], data[8:] or b"\0"
    kind = (np.float32, np.int8, np.uint8)[head[0] % 3]
    raw = np.frombuffer(body + bytes(-len(body) % 4), np.float32 if head[0] % 3 == 0 else np.uint8)
    if kind is np.int8:
        raw = raw.view(np.int8)
    contract = CONTRACTS[head[0] // 3 % len(CONTRACTS)]
    values = [_filled(np.roll(raw, i), output.shape).astype(kind) for i, output in enumerate(contract.outputs)]
    scale = 1.0 if kind is np.float32 else (1 + head[1]) / 64
    quant_params = [QuantParams(scale, 0 if kind is np.float32 else head[2] - 128)] * len(values)
    width, height = 1 + head[3] * 7, 1 + head[4] * 7
    with np.errstate(all="ignore"):
        placement = letterbox_for(contract, width, height)
        faces = postprocess(contract, values, quant_params, placement, head[5] / 255, head[6] / 255)
    for array in (faces.scores, faces.boxes, faces.landmarks):
        assert np.isfinite(array).all()
    assert (np.diff(faces.scores) <= 0).all()
    if len(faces) and contract.landmarks == 5 and head[7] % 4 == 0:
        aligned(np.zeros((height, width, 3), np.uint8), faces[0])


# Checkpoints and graphs


def _tiny_graph() -> onnx.ModelProto:
    """Every operation of the lowering, on a small image."""
    random = np.random.default_rng(0)
    weight = lambda name, *shape: helper.make_tensor(  # noqa: E731
        name, TensorProto.FLOAT, shape, random.normal(size=shape).astype(np.float32).ravel()
    )
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Sub", ["real", "mean"], ["centred"], "sub"),
        helper.make_node("Transpose", ["centred"], ["nchw"], "in", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["nchw", "w0", "b0"], ["c0"], "conv0", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("LeakyRelu", ["c0"], ["a0"], "leaky", alpha=0.1),
        helper.make_node("Conv", ["a0", "w1", "b1"], ["c1"], "conv1", pads=[1, 1, 1, 1], group=4),
        helper.make_node("Relu", ["c1"], ["a1"], "relu"),
        helper.make_node("Add", ["a0", "a1"], ["sum"], "add"),
        helper.make_node("Concat", ["sum", "a1"], ["joined"], "concat", axis=1),
        helper.make_node(
            "Resize", ["joined", "", "scales"], ["large"], "resize", mode="nearest",
            coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        ),
        helper.make_node("Transpose", ["large"], ["out"], "out", perm=[0, 2, 3, 1]),
    ]  # fmt: skip
    constants = [
        weight("mean", 3), weight("w0", 4, 3, 3, 3), weight("b0", 4), weight("w1", 4, 1, 3, 3), weight("b1", 4),
        helper.make_tensor("scales", TensorProto.FLOAT, [4], [1.0, 1.0, 2.0, 2.0]),
    ]  # fmt: skip
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 8, 8, 3])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 8, 8, 8])
    return helper.make_model(helper.make_graph(nodes, "tiny", [image], [out], constants))


_TINY = _tiny_graph()


@lru_cache(maxsize=1)
def _graphs() -> tuple[onnx.ModelProto, ...]:
    return _TINY, residual(quantised=False), residual(quantised=True), others()


def lowering(data: bytes) -> None:
    """`lower_tflite` and its writer: graphs as mutated protobuf, and small graphs with their parts exchanged."""
    from google.protobuf.message import DecodeError

    from retinaface_edge.export.lower.tflite import lower_tflite
    from retinaface_edge.export.lower.tflite_schema import serialise as serialise_tflite

    if data and data[0] % 2:
        try:
            model = onnx.load_from_string(data[1:])
        except (DecodeError, ValueError):
            return
    else:
        model = onnx.ModelProto()
        model.CopyFrom(_graphs()[(data[0] if data else 0) // 2 % len(_graphs())])
        _exchange(model.graph, data[1:])
    serialise_tflite(lower_tflite(model, {"c0": QuantParams(0.1, 128), **QUANT_PARAMS} if len(data) % 2 else {}))


def _exchange(graph: onnx.GraphProto, data: bytes) -> None:
    """An edit of the graph for every three bytes."""
    names = [*(tensor.name for tensor in graph.initializer), *(name for node in graph.node for name in node.output), ""]
    types = sorted({node.op_type for node in graph.node} | {"QuantizeLinear", "DequantizeLinear", "Softmax"})
    for start in range(0, len(data) - 2, 3):
        kind, which, value = data[start : start + 3]
        node = graph.node[which % len(graph.node)]
        if kind % 6 == 0 and node.input:
            node.input[value % len(node.input)] = names[value // 2 % len(names)]
        elif kind % 6 == 1:
            node.op_type = types[value % len(types)]
        elif kind % 6 == 2 and node.attribute:
            attribute = node.attribute[value % len(node.attribute)]
            attribute.i = value - 128
            if attribute.ints:
                attribute.ints[value % len(attribute.ints)] = (value - 64) * (1 if kind < 128 else 1 << 40)
        elif kind % 6 == 3 and len(graph.node) > 1:
            graph.node.remove(node)
        elif kind % 6 == 4:
            tensor = graph.initializer[which % len(graph.initializer)]
            tensor.dims[value % max(len(tensor.dims), 1) :] = [value % 7]
        else:
            dim = graph.input[0].type.tensor_type.shape.dim[value % 4]
            dim.dim_value = (0, 1, 7, 9, -1, 1 << 40)[which % 6]


def onnx_checkpoint(data: bytes) -> None:
    """`read_onnx`."""
    from retinaface_edge.export.checkpoints.onnx_retinaface import read_onnx

    if data and data[0] % 2:
        read_onnx(data[1:], "model.onnx")
    model = onnx.ModelProto()
    model.CopyFrom(_TINY)
    for node in model.graph.node:
        node.name = f"/fx/stage1/stage1.{node.name}/Conv"
    _exchange(model.graph, data[1:])
    read_onnx(model.SerializeToString(), "model.onnx")


def pickled_checkpoint(data: bytes) -> None:
    """`read_pickle`: bytes, and a small state dict as PyTorch saves it with bytes changed."""
    from retinaface_edge.export.checkpoints.state_dicts import read_pickle

    if data and data[0] % 2 == 0:
        content = bytearray(_small_pickle())
        for start in range(1, len(data) - 2, 3):
            content[int.from_bytes(data[start : start + 2], "big") % len(content)] = data[start + 2]
        data = bytes(content)
    read_pickle(data, "model.pth")


def _small_pickle() -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save({"body.stage1.0.0.weight": torch.zeros(2, 3, 3, 3), "fpn.output1.0.weight": torch.zeros(1)}, buffer)
    return buffer.getvalue()


def state_keys(data: bytes) -> None:
    """A state dict with the keys of a family, some gone, some renamed, some of other shapes and types."""
    import torch

    from retinaface_edge.export.checkpoints.assemble import assemble
    from retinaface_edge.export.checkpoints.families import FAMILIES, recognise

    family = FAMILIES[data[0] % len(FAMILIES)] if data else FAMILIES[0]
    state = {key: torch.zeros(1) for key in _family_keys(family)}
    keys = sorted(state)
    shapes = ((), (0,), (8,), (8, 3, 3, 3), (64, 256, 1, 1), (6, 64, 1, 1), (3, 4, 5))
    kinds = (torch.float32, torch.float64, torch.int64, torch.complex64, torch.bool)
    for key in keys[:3]:
        state[key] = torch.zeros(8, 3, 3, 3)
    for start in range(1, len(data) - 2, 3):
        kind, which, value = data[start : start + 3]
        key = keys[(which * 256 + value) % len(keys)]
        if kind % 3 == 0:
            state.pop(key, None)
        elif kind % 3 == 1:
            state[key + "x"] = state.pop(key, torch.zeros(1))
        else:
            state[key] = torch.zeros(shapes[value % len(shapes)], dtype=kinds[which % len(kinds)])
    assemble(state, recognise(state, "model.pth"), "model.pth")


@lru_cache(maxsize=4)
def _family_keys(family: str) -> tuple[str, ...]:
    """The names of one small network of a family."""
    from retinaface_edge.export.checkpoints.assemble import names
    from retinaface_edge.export.checkpoints.families import BIUBUG6, ONE_MEGABYTE, OURS, YAKHYO
    from retinaface_edge.export.checkpoints.layer_names import (
        backbone_layers,
        neck_layers,
        one_megabyte_layers,
        our_layers,
    )
    from retinaface_edge.export.models.retinaface import architecture

    shape = architecture("slim" if family == ONE_MEGABYTE else "mobilenet_v1_0.25")
    if family in (OURS, ONE_MEGABYTE):
        return tuple(key for key, _ in names({OURS: our_layers, ONE_MEGABYTE: one_megabyte_layers}[family](shape)))
    published = BIUBUG6 if family == BIUBUG6.name else YAKHYO
    backbone = backbone_layers(shape.backbone, published.prefix, published.depthwise, shape.tapped)
    layers = (*backbone, *neck_layers(shape), *published.heads.layers(shape))
    return tuple(key for key, _ in names(layers))


# The dense branch, and what it learns from


@lru_cache(maxsize=1)
def _small_branch() -> bytes:
    from retinaface_edge.export.models.mesh_branch import branch_file
    from retinaface_edge.export.models.mesh_linear import LinearBranch

    mesh = Mesh(channels=1)
    return branch_file(LinearBranch(mesh.inputs, mesh.vertices), mesh, {"checkpoint": "0" * 64})


def branch(data: bytes) -> None:
    """`read_branch`: bytes; a small branch with bytes changed in its header or its weights."""
    from retinaface_edge.export.models.mesh_branch import read_branch

    content = bytearray(data[1:])
    if data and data[0] % 2 == 0:
        content = bytearray(_small_branch())
        header = int.from_bytes(content[:8], "little") + 8
        for start in range(1, len(data) - 2, 3):
            place = int.from_bytes(data[start : start + 2], "big")
            content[place % (header if place % 2 else len(content))] = data[start + 2]
    read_branch(_written("mesh.safetensors", bytes(content))).check("0" * 64)


_LABELS = [{"file": "picture.png", "faces": [{"box_xyxy": [1, 2, 9, 8], "landmarks_xy": [3, 4] * 5}]}]


def labels(data: bytes) -> None:
    """`read_labels`, its text and its JSON."""
    from retinaface_edge.training.label_files import read_labels

    _written("picture.png", b"")
    suffix = "txt" if data and data[0] % 4 == 3 else "json"
    for picture in read_labels(_written(f"labels.{suffix}", as_json(_LABELS, data))):
        assert picture.boxes.shape == (len(picture.landmarks), 4)
        assert np.isfinite(picture.boxes).all() and np.isfinite(picture.landmarks).all()


def teacher(data: bytes) -> None:
    """`Teacher`: bytes, and a small network with bytes changed."""
    from retinaface_edge.training.mesh.teacher import Teacher

    content = bytearray(data[1:])
    if data and data[0] % 2 == 0:
        content = bytearray(_tiny_tflite())
        for start in range(1, len(data) - 2, 3):
            content[int.from_bytes(data[start : start + 2], "big") % len(content)] = data[start + 2]
    Teacher(_written("teacher.tflite", bytes(content)))


@lru_cache(maxsize=1)
def _tiny_tflite() -> bytes:
    from retinaface_edge.export.lower.tflite import lower_tflite
    from retinaface_edge.export.lower.tflite_schema import serialise as serialise_tflite

    return serialise_tflite(lower_tflite(_TINY, {}))


def vertices(data: bytes) -> None:
    """`describe`, `place`, `head_pose` and `mesh_files` on faces anywhere, of any size, and any finite features."""
    head, body = (data + bytes(8))[:8], data[8:] or b"\0"
    raw = np.frombuffer(body + bytes(-len(body) % 4), np.float32)
    values = np.clip(np.nan_to_num(raw), -1e6, 1e6)
    assert DENSE.mesh
    low = _filled(values, (1, 2)).astype(float)
    boxes = np.concatenate([low, low + 1e-3 + np.abs(_filled(np.roll(values, 1), (1, 2)))], axis=1)
    features = [_filled(np.roll(values, i), f.shape) for i, f in enumerate(DENSE.features)]
    quant_params = [QuantParams((1 + head[4]) / 64, head[5])] * len(features)
    described = describe(DENSE, features, quant_params, boxes, _filled(values[::-1], (1, 5, 2)).astype(float))
    assert described.shape == (1, DENSE.mesh.inputs)
    assert np.isfinite(described).all()
    (mesh,) = place(boxes, _filled(values, (1, 468, 3)).astype(float))
    assert np.isfinite(head_pose(mesh)).all()
    if head[1] % 16 == 0:  # a texture takes a while
        kind, frame = FORMATS[head[1] // 16 % len(FORMATS)], np.zeros((1 + head[2], 1 + head[3], 3), np.uint8)
        assert all(mesh_files(kind, "face", mesh, frame).values())


def _pictures() -> list[bytes]:
    made = []
    pixels = np.arange(16 * 12 * 3, dtype=np.uint8).reshape(12, 16, 3)
    for mode, kind in (("RGB", "PNG"), ("L", "PNG"), ("P", "PNG"), ("RGBA", "PNG"), ("RGB", "JPEG"), ("L", "JPEG")):
        buffer = io.BytesIO()
        Image.fromarray(pixels).convert(mode).save(buffer, kind)
        made.append(buffer.getvalue())
    return made


_EDITS = [b"\0", b"\0\1\2\3", b"\2\0\0\0\4\2\5", bytes(range(0, 60, 2))]
TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "manifest": (manifest, [*_EDITS, b"\1" + serialise(_MANIFEST)]),
    "spec": (spec, _EDITS),
    "gate": (gate, [*_EDITS, b"\1" + json.dumps(_GATE).encode()]),
    "recipe": (recipe, [*_EDITS, b"\1" + json.dumps(_RECIPE).encode()]),
    "boxes": (boxes, [*_EDITS, b"\1" + json.dumps(_BOXES).encode()]),
    "result": (result, _EDITS),
    "picture": (picture, _pictures()),
    "frame": (frame, [*_EDITS, bytes(range(64))]),
    "outputs": (outputs, [*_EDITS, bytes(range(256))]),
    "lowering": (
        lowering,
        [*_EDITS, *(bytes([2 * i, 0, 0, 0]) for i in range(4)), *(b"\1" + g.SerializeToString() for g in _graphs())],
    ),
    "onnx-checkpoint": (onnx_checkpoint, [*_EDITS, b"\1" + _TINY.SerializeToString()]),
    "pickled-checkpoint": (pickled_checkpoint, [*_EDITS, b"\1PK\3\4"]),
    "state-keys": (state_keys, _EDITS),
    "branch": (branch, [*_EDITS, b"\1" + _small_branch(), *(bytes([2 * (i % 2), i, 1, i]) for i in range(10))]),
    "labels": (labels, [*_EDITS, b"\1" + json.dumps(_LABELS).encode(), b"\3# picture.png\n1 2 3 4 " + b"1 2 0 " * 5]),
    "teacher": (teacher, [*_EDITS, b"\1" + _tiny_tflite()]),
    "vertices": (vertices, [*_EDITS, bytes(range(256)), np.linspace(0, 64, 60, dtype=np.float32).tobytes()]),
    "tensors": (tensors, STATE_EDITS),
    "onnx-detector": (onnx_detector(_exchange), DETECTORS),
    "embedder": (embedder(_exchange), [*_EDITS, b"\1" + _TINY.SerializeToString()]),
    "report": (report(FOLDER / "bundle", _MANIFEST), MEASURED),
    **MEASUREMENTS,
    **FILE_TARGETS,
    **{name: (target, EDITS) for name, target in bundle_targets(FOLDER / "bundle", _MANIFEST).items()},
}
