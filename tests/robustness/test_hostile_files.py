"""Files that others made, of kinds that the fuzzers found: refused in one line, and never waited for."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "tests" / "robustness" / "fuzz"))

from state_dicts import _detector

from retinaface_edge.benchmarks.errors import MeasurementError
from retinaface_edge.benchmarks.identity.embedder import Embedder, EmbedderError, read_embedder
from retinaface_edge.benchmarks.identity.pairs import read_pairs
from retinaface_edge.export.checkpoints.detectors.recognise import read_onnx_detector
from retinaface_edge.export.checkpoints.interpretation import Overrides
from retinaface_edge.export.graph.detector_graph import GraphError, read_detector_graph
from retinaface_edge.runtime import ImageError
from retinaface_edge.runtime.io.picture_files import LIST_BYTES, picture_files


@pytest.mark.parametrize("objects", [False, True], ids=["SCRFD", "YuNet"])
def test_the_small_detectors_of_the_fuzzer_are_known(objects: bool) -> None:
    found = read_onnx_detector(_detector(objects).SerializeToString(), "model.onnx", Overrides())
    assert found is not None
    assert found.graph(found.spec(64, 64), 18).graph.output


@pytest.mark.parametrize("fault", ["shape", "circle", "no weights", "kernel", "no input"])
def test_a_detector_whose_graph_contradicts_itself_is_refused(fault: str) -> None:
    model = _detector(objects=False)
    model = type(model).FromString(model.SerializeToString())
    node, weight = model.graph.node[0], model.graph.initializer[0]
    if fault == "shape":
        del weight.dims[:]
        weight.dims.append(0)
    elif fault == "circle":
        reshape = next(node for node in model.graph.node if node.op_type == "Reshape")
        reshape.input[0] = reshape.output[0]
    elif fault == "no weights":
        del node.input[1:]
    elif fault == "kernel":
        next(attribute for attribute in node.attribute if attribute.name == "kernel_shape").ints[0] = -3
    else:
        next(node for node in model.graph.node if node.op_type == "Transpose").input[0] = ""
    with pytest.raises(GraphError) as refused:
        read_detector_graph(model.SerializeToString())
    assert "\n" not in str(refused.value)


def test_a_recogniser_whose_layers_do_not_fit_is_refused() -> None:
    from measurements import _recogniser

    model = type(_recogniser()).FromString(_recogniser().SerializeToString())
    assert Embedder("model.onnx", model.SerializeToString()).size == 112
    weight = model.graph.initializer[0]
    weight.dims[:] = [64, 3]
    with pytest.raises(EmbedderError, match=r"model\.onnx"):
        Embedder("model.onnx", model.SerializeToString())


def test_lists_pairs_and_recognisers_are_judged_before_they_are_read(tmp_path: Path) -> None:
    for name in ("list.txt", "pairs.csv", "model.onnx"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(40 << 30)
    with pytest.raises(ImageError, match=f"more than {LIST_BYTES:,} bytes"):
        picture_files([str(tmp_path / "list.txt")])
    with pytest.raises(MeasurementError, match="more than"):
        read_pairs(tmp_path / "pairs.csv")
    with pytest.raises(EmbedderError, match="more than"):
        read_embedder(tmp_path / "model.onnx")
    for name in ("pairs.csv", "model.onnx"):
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
    with pytest.raises(MeasurementError, match="a pipe"):
        read_pairs(tmp_path / "pairs.csv")
    with pytest.raises(EmbedderError, match="a pipe"):
        read_embedder(tmp_path / "model.onnx")


def test_lists_made_on_windows_are_read(tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "in").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "in" / "a.png")
    for encoding in ("utf-8-sig", "utf-16"):
        (tmp_path / "list.txt").write_text("in\\a.png\r\n", encoding)
        assert picture_files([str(tmp_path / "list.txt")]).pictures == (tmp_path / "in" / "a.png",)
