"""Every family of checkpoints is read, strictly, and none can run code."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from untrained import random_model

from retinaface_edge.export.checkpoints.source import CheckpointError, read_checkpoint
from retinaface_edge.export.models.retinaface import RetinaFace, architecture


def as_biubug6(model: RetinaFace) -> dict[str, Tensor]:
    """Our state dict under the names of the published training code, by rules written down independently here."""
    renamed = {}
    for name, value in model.state_dict().items():
        name = re.sub(r"^backbone\.stem\.conv", "body.stage1.0.0", name)
        name = re.sub(r"^backbone\.stem\.norm", "body.stage1.0.1", name)
        if match := re.match(r"backbone\.stages\.(\d)\.(\d)\.(depthwise|pointwise)\.(conv|norm)\.(.*)", name):
            stage, block, kind, part, rest = match.groups()
            index = {"depthwiseconv": 0, "depthwisenorm": 1, "pointwiseconv": 3, "pointwisenorm": 4}[kind + part]
            name = f"body.stage{int(stage) + 1}.{int(block) + (stage == '0')}.{index}.{rest}"
        name = re.sub(r"^pyramid\.lateral\.(\d)", lambda m: f"fpn.output{int(m[1]) + 1}", name)
        name = re.sub(r"^pyramid\.merge\.(\d)", lambda m: f"fpn.merge{int(m[1]) + 1}", name)
        name = re.sub(r"^context\.(\d)", lambda m: f"ssh{int(m[1]) + 1}", name)
        for ours, theirs in (("conv3", "conv3X3"), ("conv5_1", "conv5X5_1"), ("conv5_2", "conv5X5_2")):
            name = name.replace(f".{ours}.", f".{theirs}.")
        name = name.replace(".conv7_2.", ".conv7X7_2.").replace(".conv7_3.", ".conv7x7_3.")
        if name.startswith(("fpn", "ssh")):
            name = name.replace(".conv.", ".0.").replace(".norm.", ".1.")
        for ours, theirs in (("score", "ClassHead"), ("box", "BboxHead"), ("landmark", "LandmarkHead")):
            name = re.sub(rf"^{ours}\.(\d)", rf"{theirs}.\1.conv1x1", name)
        renamed[name] = value
    return renamed


def as_yakhyo(model: RetinaFace) -> dict[str, Tensor]:
    renamed = {}
    for name, value in as_biubug6(model).items():
        if match := re.match(r"body\.(stage\d\.\d)\.(\d)\.(.*)", name):
            block, index, rest = match.groups()
            stem = block == "stage1.0"
            inner = index if stem else {"0": "0.0", "1": "0.1", "3": "1.0", "4": "1.1"}[index]
            name = f"fx.{block}.{inner}.{rest}"
        for theirs, other in (
            ("ClassHead", "class_head"),
            ("BboxHead", "bbox_head"),
            ("LandmarkHead", "landmark_head"),
        ):
            name = re.sub(rf"^{theirs}\.(\d)\.conv1x1", rf"{other}.{other}.\1", name)
        renamed[name] = value
    return renamed


def with_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"module.{name}": value for name, value in state.items()}


FAMILIES: dict[str, Callable[[RetinaFace], dict[str, Tensor]]] = {
    "biubug6": as_biubug6,
    "yakhyo": as_yakhyo,
    "retinaface-edge": lambda model: dict(model.state_dict()),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "wrap", [dict, with_prefix, lambda s: {"state_dict": s, "epoch": 3}], ids=["plain", "module", "wrapped"]
)
def test_each_family_is_recognised_and_read_whole(
    family: str, wrap: Callable[[dict[str, Tensor]], dict[str, object]], tmp_path: Path
) -> None:
    model = random_model(seed=5)
    torch.save(wrap(FAMILIES[family](model)), tmp_path / "model.pth")
    read = read_checkpoint(tmp_path / "model.pth")
    assert read.family == family
    for name, value in model.state_dict().items():
        assert torch.equal(read.model.state_dict()[name], value), name


def test_the_names_are_those_of_the_published_checkpoint(shared: Path) -> None:
    lines = (shared / "biubug6_state_dict_keys.txt").read_text().splitlines()
    published = {line.split(" ", 1)[0]: line.split(" ", 1)[1] for line in lines if line.strip()}
    state = as_biubug6(RetinaFace(architecture()))
    assert {name: str(tuple(value.shape)) for name, value in state.items()} == published


def test_the_demo_weights_are_the_onnx_model_they_came_from(checkpoint: object) -> None:
    """The network that we read out of the ONNX file gives what ONNX Runtime gives for that file."""
    import ast
    import importlib.util

    import numpy as np
    import onnxruntime

    origin = importlib.util.find_spec("retinaface").origin  # type: ignore[union-attr]
    source = Path(str(origin)).parent / "weights.py"
    content = ast.literal_eval(source.read_text().split("=", 1)[1].strip())
    pixels = np.random.default_rng(0).normal(scale=60, size=(1, 3, 96, 128)).astype(np.float32)
    boxes, confidences, landmarks = onnxruntime.InferenceSession(content).run(None, {"input": pixels})
    with torch.no_grad():
        predictions = checkpoint.model(torch.from_numpy(pixels))  # type: ignore[attr-defined]
    rows = [
        torch.cat([level.permute(0, 2, 3, 1).reshape(1, -1, size) for level in levels], 1)
        for levels, size in zip(predictions, (2, 4, 10), strict=True)
    ]
    assert np.abs(torch.softmax(rows[0], -1).numpy() - confidences).max() < 1e-4
    assert np.abs(rows[1].numpy() - boxes).max() < 1e-4
    assert np.abs(rows[2].numpy() - landmarks).max() < 1e-4


def test_what_is_missing_or_unexpected_is_listed_by_name(tmp_path: Path) -> None:
    state = as_biubug6(random_model(seed=6))
    del state["ssh2.conv7X7_2.0.weight"]
    state["body.extra.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"missing ssh2\.conv7X7_2\.0\.weight; unexpected body\.extra\.weight"):
        read_checkpoint(tmp_path / "model.pth")


def test_a_model_with_other_heads_is_refused_by_shape(tmp_path: Path) -> None:
    state = as_biubug6(random_model(seed=7))
    state["ClassHead.0.conv1x1.weight"] = torch.zeros(6, 64, 1, 1)
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(
        CheckpointError, match=r"ClassHead\.0\.conv1x1\.weight \(6, 64, 1, 1\) instead of \(4, 64, 1, 1\)"
    ):
        read_checkpoint(tmp_path / "model.pth")


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = as_biubug6(random_model(seed=8))
    state["fpn.merge1.0.weight"] = state["fpn.merge1.0.weight"] * float("nan")
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"not finite in: fpn\.merge1\.0\.weight"):
        read_checkpoint(tmp_path / "model.pth")


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


def test_a_hostile_pickle_runs_no_code(tmp_path: Path) -> None:
    torch.save({"body.stage1.0.0.weight": Hostile(tmp_path / "pwned")}, tmp_path / "model.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Hostile(tmp_path / "pwned")))
    for name in ("model.pth", "raw.pth"):
        with pytest.raises(CheckpointError, match="plain tensors"):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "pwned").exists()


def damaged(kind: str, folder: Path) -> Path:
    path = folder / "model.pth"
    if kind == "directory":
        path.mkdir()
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "no model")
    elif kind == "truncated":
        torch.save(as_biubug6(random_model(seed=9)), path)
        path.write_bytes(path.read_bytes()[:100_000])
    elif kind == "empty":
        path.touch()
    elif kind == "list":
        torch.save([torch.zeros(3)], path)
    elif kind == "other":
        torch.save({"layer1.weight": torch.zeros(3)}, path)
    elif kind in ("text.onnx", "empty.onnx"):
        path = folder / "model.onnx"
        path.write_text("not a model\n" if kind == "text.onnx" else "")
    return path


@pytest.mark.parametrize(
    "kind", ["directory", "zip", "truncated", "empty", "list", "other", "text.onnx", "empty.onnx", "absent"]
)
def test_what_is_no_checkpoint_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    path = damaged(kind, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
