"""Targets for what measuring reads: pairs, lists, predictions, recognisers, boards, videos, results, the report."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from edits import as_json, edited
from files import placed
from onnx import TensorProto, helper, numpy_helper

from retinaface_edge.benchmarks.accuracy.result import CompareResult, EvalResult
from retinaface_edge.benchmarks.accuracy.wider_files import read_predictions
from retinaface_edge.benchmarks.cost.board import read_boards
from retinaface_edge.benchmarks.drift.result import DriftResult
from retinaface_edge.benchmarks.errors import MeasurementError
from retinaface_edge.benchmarks.gates.gate import read_gate
from retinaface_edge.benchmarks.identity.embedder import Embedder
from retinaface_edge.benchmarks.identity.pairs import read_pairs
from retinaface_edge.benchmarks.latency.result import BenchResult
from retinaface_edge.benchmarks.report.html import ReportInput, write_report
from retinaface_edge.benchmarks.results import BundleOrigin, read_result
from retinaface_edge.runtime import Bundle
from retinaface_edge.runtime.bundle.bundle import MANIFEST, serialise
from retinaface_edge.runtime.io.frame_source import FrameSource, Stream
from retinaface_edge.runtime.io.picture_files import picture_files

FIXTURES = Path(__file__).parents[2] / "fixtures" / "results_v1"
MEMORY = Path("/dev/shm")
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-measure-", dir=MEMORY if MEMORY.is_dir() else None))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)
TAG = "<script>alert(1)</script>\x1b[31m"
"""A name that acts on a page or a terminal which does not escape it."""


def pairs(data: bytes) -> None:
    """`read_pairs`: any kind of file, any bytes."""
    path = FOLDER / "pairs.csv"
    placed(path, data)
    for pair in read_pairs(path):
        assert pair.first and pair.second


def picture_list(data: bytes) -> None:
    """`picture_files` on a folder and on a list of any kind and bytes, with names of any bytes."""
    folder = FOLDER / "pictures"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    name = os.fsdecode(re.sub(rb"[\0/]", b"_", data[1:40])) or "a"
    if name not in (".", ".."):
        placed(folder / name, bytes([6 + data[0] % 10 if data and data[0] % 4 else 0]) + b"\xff\xd8\xff")
    placed(folder / "list.txt", data)
    for source in (folder, folder / "list.txt"):
        picture_files([str(source)])


def prediction(data: bytes) -> None:
    """`read_predictions`: WIDER FACE's text files."""
    (FOLDER / "0--Parade").mkdir(exist_ok=True)
    path = FOLDER / "0--Parade" / "a.txt"
    placed(path, data)
    found, absent = read_predictions(FOLDER, ["0--Parade/a.jpg"])
    assert absent or np.isfinite(found["0--Parade/a.jpg"].boxes).all()


_BOARD = {"core": "cortex-a76", "gigahertz": 2.4, "threads": 1, "points": []}
_BOARDS = {"kind": "boards", "format_version": 1, "boards": {"cortex-a76": _BOARD}}


def boards(data: bytes) -> None:
    """`read_boards`: the file of calibrated boards."""
    path = FOLDER / "boards.json"
    placed(path, data if data and data[0] % 4 == 0 else b"\6" + as_json(_BOARDS, data))
    read_boards(path)


@lru_cache(maxsize=1)
def _recogniser() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones((3, 64), np.float32), "w")
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["mean"], "mean"),
        helper.make_node("Flatten", ["mean"], ["flat"], "flat"),
        helper.make_node("MatMul", ["flat", "w"], ["vector"], "vector"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 112, 112])
    vector = helper.make_tensor_value_info("vector", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "recogniser", [image], [vector], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def embedder(exchange: Callable[[onnx.GraphProto, bytes], None]) -> Callable[[bytes], None]:
    """The target for recognisers; `exchange` edits a graph as bytes say."""

    def target(data: bytes) -> None:
        """`Embedder`: ONNX bytes, and a small recogniser with its parts exchanged."""
        content = data[1:]
        if data and data[0] % 2 == 0:
            model = onnx.ModelProto()
            model.CopyFrom(_recogniser())
            exchange(model.graph, data[1:])
            content = model.SerializeToString()
        Embedder("model.onnx", content)

    return target


def video(data: bytes) -> None:
    """`FrameSource` on any kind of file and bytes, up to ten frames."""
    import cv2

    path = FOLDER / "clip.avi"
    content = bytearray(_clip())
    for start in range(1, len(data) - 2, 3):
        content[int.from_bytes(data[start : start + 2], "big") % len(content)] = data[start + 2]
    placed(path, data if data and data[0] % 4 == 0 else b"\6" + bytes(content))
    source = FrameSource(cv2, Stream(str(path)))
    try:
        assert all(frame.ndim == 3 for frame in source.frames(10))
    finally:
        source.close()


@lru_cache(maxsize=1)
def _clip() -> bytes:
    import cv2

    path = FOLDER / "whole.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (32, 24))
    for index in range(3):
        writer.write(np.full((24, 32, 3), 40 * index, np.uint8))
    writer.release()
    return path.read_bytes()


_READ: dict[str, type[Any]] = {
    "drift": DriftResult,
    "eval": EvalResult,
    "bench": BenchResult,
    "compare": CompareResult,
}
_RESULTS = {kind: json.loads((FIXTURES / f"{kind}.json").read_text()) for kind in _READ}


def _named(value: Any, data: bytes) -> Any:
    """A copy in which texts are hostile where bytes say so."""
    if isinstance(value, dict):
        return {key: _named(one, data[1:] + data[:1]) for key, one in value.items()}
    if isinstance(value, list):
        return [_named(one, data) for one in value]
    return value + TAG if isinstance(value, str) and data and data[0] % 16 == 5 else value


def results(data: bytes) -> None:
    """`read_result` of each kind, with fields edited and texts that are hostile."""
    kind = tuple(_READ)[data[0] % len(_READ) if data else 0]
    (FOLDER / "result.json").write_text(json.dumps(edited(_named(_RESULTS[kind], data), data[1:])), "utf-8")
    read_result(FOLDER / "result.json", _READ[kind])


def report(bundle: Path, manifest: dict[str, Any]) -> Callable[[bytes], None]:
    """The target for the HTML report of hostile results about a bundle."""

    def target(data: bytes) -> None:
        """`write_report`: no text of a result becomes a tag."""
        (bundle / MANIFEST).write_bytes(serialise(manifest))
        loaded, read = Bundle.load(bundle), dict[str, Any]()
        for kind in ("drift", "eval", "bench"):
            file = FOLDER / f"{kind}.json"
            file.write_text(json.dumps(edited(_named(_RESULTS[kind], data), data[2:])), "utf-8")
            try:
                result = read_result(file, _READ[kind])
            except MeasurementError:
                continue
            read[kind] = replace(result, bundle=BundleOrigin(loaded.manifest["digest"], {}))
        evals = (read["eval"],) if "eval" in read else ()
        given = ReportInput(loaded, read.get("drift"), evals, read.get("bench"), None)
        write_report(FOLDER / "report.html", given, read_gate(None) if len(data) % 2 else None)
        assert "<script>alert" not in (FOLDER / "report.html").read_text("utf-8")

    return target


EDITS = [
    *(bytes([kind]) for kind in range(6)),
    b"\1\1",
    b"\6abc",
    b"\2\0\0\0\4\2\5",
    bytes(range(0, 60, 2)),
    bytes([5] * 40),
]
CSV = b"\6first,second,same,fold\na.png;b.png,c.png,1,0\na.png,d.png,0,1\n"
TARGETS: dict[str, tuple[Callable[[bytes], None], list[bytes]]] = {
    "pairs": (pairs, [*EDITS, CSV]),
    "picture-list": (picture_list, [*EDITS, b"\6\xff\x1b[31m\n", b"\6# a\n../x\n"]),
    "prediction": (prediction, [*EDITS, b"\6a\n1\n1 2 3 4 0.5\n"]),
    "boards": (boards, [*EDITS, b"\1" + json.dumps(_BOARDS).encode()]),
    "video": (video, [*EDITS, b"\1\0\4\0", b"\1\1\1\1\0\40\1"]),
    "results": (results, [*EDITS, *(bytes([i, 5, 5, 5]) for i in range(4))]),
}
