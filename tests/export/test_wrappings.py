"""What training code puts around a state dict is taken off and named; what is no state dict is refused in one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from untrained import random_detector, random_model

from retinaface_edge.export.checkpoints.source import CheckpointError, read_checkpoint
from retinaface_edge.export.models.retinaface import architecture

State = dict[str, Tensor]


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + key: value for key, value in state.items()}


def optimiser(state: State) -> dict[str, Any]:
    """The state of an optimiser: numbers for keys, tensors inside."""
    return {"state": {0: {"exp_avg": torch.zeros(3), "step": 4}}, "param_groups": [{"lr": 0.1}]}


WRAPPINGS: dict[str, tuple[Callable[[State], object], tuple[str, ...]]] = {
    "module": (prefixed("module."), ("module.",)),
    "module.module": (prefixed("module.module."), ("module.", "module.")),
    "model": (prefixed("model."), ("model.",)),
    "net": (prefixed("net."), ("net.",)),
    "compiled": (prefixed("_orig_mod."), ("_orig_mod.",)),
    "compiled and parallel": (prefixed("module._orig_mod."), ("module.", "_orig_mod.")),
    "Lightning": (
        lambda s: {"epoch": 3, "state_dict": prefixed("model.")(s), "optimizer_states": [optimiser(s)]},
        ("state_dict", "model."),
    ),
    "Lightning net": (lambda s: {"state_dict": prefixed("net.")(s)}, ("state_dict", "net.")),
    "ema": (lambda s: {"model": {k: v * 0 for k, v in s.items()}, "ema": s, "epoch": 1}, ("ema",)),
    "model_ema": (lambda s: {"model_ema": s, "optimizer": optimiser(s)}, ("model_ema",)),
    "model_state": (lambda s: {"model_state": s, "epoch": torch.tensor(3)}, ("model_state",)),
    "weights": (lambda s: {"weights": s}, ("weights",)),
    "params": (lambda s: {"params": s}, ("params",)),
    "net container": (lambda s: {"net": prefixed("module.")(s), "acc": 0.9}, ("net", "module.")),
    "container in a container": (lambda s: {"model": {"state_dict": s}}, ("model", "state_dict")),
    "unusual container": (lambda s: {"retinaface": s, "optimizer": optimiser(s)}, ("retinaface",)),
    "epoch beside": (lambda s: {**s, "epoch": 7}, ("epoch beside the tensors",)),
    "averaged": (
        lambda s: {**prefixed("module.")(s), "n_averaged": torch.tensor(9)},
        ("module.", "n_averaged left over"),
    ),
    "priors": (lambda s: {**s, "priors": torch.zeros(12600, 4)}, ("priors left over",)),
}


@pytest.mark.parametrize("kind", WRAPPINGS)
def test_a_wrapping_is_taken_off_and_named(kind: str, tmp_path: Path) -> None:
    wrap, expected = WRAPPINGS[kind]
    model = random_model(seed=1)
    torch.save(wrap(dict(model.state_dict())), tmp_path / "model.pth")
    read = read_checkpoint(tmp_path / "model.pth")
    assert read.wrappings == expected
    for name, value in model.state_dict().items():
        assert torch.equal(read.model.state_dict()[name], value) or name.endswith("num_batches_tracked"), name


def test_a_classifier_left_over_is_dropped_and_named(tmp_path: Path) -> None:
    from oracles.published import PUBLISHED, Weights

    weights = Weights(1)
    PUBLISHED["yakhyo r18"].define(weights, torch.zeros(1, 3, 64, 64).double())
    state = {**weights.state, "fx.fc.weight": torch.zeros(1000, 512), "fx.fc.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "model.pth")
    assert read_checkpoint(tmp_path / "model.pth").wrappings == ("fx.fc left over",)


def test_safetensors_are_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    model = random_detector(2, architecture("slim"))
    save_file({f"module.{k}": v.clone() for k, v in model.state_dict().items()}, tmp_path / "model.safetensors")
    read = read_checkpoint(tmp_path / "model.safetensors")
    assert (read.backbone, read.wrappings) == ("slim", ("module.",))
    assert torch.equal(read.model.state_dict()["backbone.stem.conv.weight"], model.backbone.stem.conv.weight)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_read_as_float32(kind: torch.dtype, tmp_path: Path) -> None:
    state = {
        key: value.to(kind) if value.is_floating_point() else value
        for key, value in random_model(seed=3).state_dict().items()
    }
    torch.save(state, tmp_path / "model.pth")
    read = read_checkpoint(tmp_path / "model.pth").model.state_dict()
    assert read["backbone.stem.conv.weight"].dtype == torch.float32
    assert torch.equal(read["backbone.stem.conv.weight"], state["backbone.stem.conv.weight"].float())


def whole_module(path: Path) -> None:
    torch.save(random_model(seed=4), path)


def torch_script(path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Conv2d(3, 4, 1), torch.zeros(1, 3, 4, 4)), path)


def changed(change: Callable[[Tensor], Tensor]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        state = dict(random_model(seed=5).state_dict())
        state["pyramid.merge.0.conv.weight"] = change(state["pyramid.merge.0.conv.weight"])
        torch.save(state, path)

    return write


def scrfd(path: Path) -> None:
    keys = ("backbone.stem.0.weight", "neck.lateral_convs.0.conv.weight", "bbox_head.stride_cls.(8, 8).weight")
    torch.save({"state_dict": {key: torch.zeros(3, 3, 1, 1) for key in keys}, "meta": {"epoch": 640}}, path)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "whole module": (whole_module, r"whole pickled module.*RetinaFace.*torch\.save\(model\.state_dict\(\), path\)"),
    "TorchScript": (torch_script, r"TorchScript.*torch\.jit\.load\(path\)\.state_dict\(\)"),
    "sparse": (changed(lambda value: value.flatten(1).to_sparse()), r"a sparse tensor pyramid\.merge\.0\.conv\.weight"),
    "meta": (changed(lambda value: value.to("meta")), "meta"),
    "complex": (changed(lambda value: value.to(torch.complex64)), "a complex tensor"),
    "scrfd": (scrfd, r"mmdetection's SCRFD.*python tools/scrfd2onnx\.py CONFIG CHECKPOINT"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore")
def test_what_is_no_plain_state_dict_is_refused_with_what_to_do(kind: str, tmp_path: Path) -> None:
    write, words = REFUSED[kind]
    write(tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=words) as raised:
        read_checkpoint(tmp_path / "model.pth")
    assert "\n" not in str(raised.value)


def test_a_quantised_checkpoint_is_refused_as_one(shared: Path) -> None:
    with pytest.raises(CheckpointError, match=r"already quantised .*qint8.*give the float checkpoint"):
        read_checkpoint(shared / "checkpoints" / "already_quantised.pth")


@contextmanager
def little_memory(limit: int) -> Iterator[None]:
    """Fail what asks for more than `limit` bytes at once, as far as PyTorch's allocator is asked."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = function(*args, **(kwargs or {}))
            for value in result if isinstance(result, tuple | list) else (result,):
                if isinstance(value, Tensor) and not value.is_meta:
                    assert value.untyped_storage().nbytes() <= limit, function
            return result

    with Watch():
        yield


@pytest.mark.parametrize("key", ["pyramid.merge.0.conv.weight", "backbone.stem.conv.weight", "box.0.weight", "priors"])
def test_a_tensor_that_only_claims_to_be_large_costs_no_memory(key: str, tmp_path: Path) -> None:
    """An expanded tensor is a few bytes in the file and terabytes when it is copied."""
    state = dict(random_model(seed=6).state_dict())
    state[key] = torch.zeros(1, 1, 1, 1).expand(1 << 12, 1 << 12, 1 << 8, 1 << 8)
    torch.save(state, tmp_path / "model.pth")
    assert (tmp_path / "model.pth").stat().st_size < 4 << 20
    with little_memory(8 << 20):
        if key == "priors":
            read_checkpoint(tmp_path / "model.pth")
        else:
            with pytest.raises(CheckpointError, match=key.replace(".", r"\.")):
                read_checkpoint(tmp_path / "model.pth")
