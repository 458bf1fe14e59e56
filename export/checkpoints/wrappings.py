"""What training code puts around a state dict: containers, prefixes, and tensors that do not belong to the network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

# Containers, in the order in which they are preferred: averaged weights are those that their authors evaluate.
CONTAINERS = (
    "ema",
    "ema_state_dict",
    "model_ema",
    "state_dict_ema",
    "params_ema",
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "weights",
    "params",
    "module",
    "shadow",
)
PREFIXES = ("module.", "model.", "_orig_mod.", "net.", "network.", "ema.", "detector.", "ema_model.")
MARKS = ("body.", "fx.", "backbone.", "fpn.", "ssh1.", "conv1.")
"""How the network's own names begin: where one stands at the front, no prefix is left."""
LEFT_OVER = re.compile(
    r"(?:.*\.)?(?:num_batches_tracked|priors|n_averaged)|(?:body|fx)\.(?:fc|avg|classifier|linear)\..*"
)
"""Counters, anchors kept as a buffer, and the classifier of a pre-trained backbone."""
DEEPEST = 6


@dataclass(frozen=True)
class StateDict:
    """Tensors by their bare names, and the wrappings removed around them, outermost first."""

    tensors: dict[str, Tensor]
    wrappings: tuple[str, ...]


def unwrap(loaded: object) -> StateDict | None:
    """The state dict inside what `torch.load` gave; None where there is none."""
    wrappings: list[str] = []
    for _ in range(DEEPEST):
        if not isinstance(loaded, Mapping):
            return None
        tensors = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
        if any("." in key for key in tensors):
            beside = [str(key) for key, value in loaded.items() if not isinstance(value, Tensor)]
            wrappings += [f"{key} beside the tensors" for key in beside if key != "_metadata"]
            return _without_prefixes(tensors, wrappings)
        inner = _container(loaded)
        if inner is None:
            return None
        wrappings.append(inner)
        loaded = next(value for key, value in loaded.items() if str(key) == inner)
    return None


def _container(loaded: Mapping[object, object]) -> str | None:
    """The entry that holds the state dict: a usual name, or the only one that holds tensors."""
    holding = [str(key) for key, value in loaded.items() if isinstance(value, Mapping) and _holds_tensors(value)]
    usual = [name for name in CONTAINERS if name in holding]
    if usual:
        return usual[0]
    return holding[0] if len(holding) == 1 else None


def _holds_tensors(value: Mapping[object, object], depth: int = DEEPEST) -> bool:
    """Whether a mapping holds tensors under text keys, at any depth; an optimiser's state has numbers for keys."""
    for key, inner in value.items():
        if isinstance(key, str) and isinstance(inner, Tensor):
            return True
        if depth and isinstance(key, str) and isinstance(inner, Mapping) and _holds_tensors(inner, depth - 1):
            return True
    return False


def _without_prefixes(tensors: dict[str, Tensor], wrappings: list[str]) -> StateDict:
    while not any(key.startswith(MARKS) for key in tensors):
        kept = [key for key in tensors if not LEFT_OVER.fullmatch(key)]
        prefix = next((p for p in PREFIXES if kept and all(key.startswith(p) for key in kept)), None)
        if prefix is None:
            break
        wrappings.append(prefix)
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    left_over = [key for key in tensors if LEFT_OVER.fullmatch(key)]
    named = sorted({_summary(key) for key in left_over} - {""})
    wrappings += [f"{name} left over" for name in named]
    dropped = set(left_over)
    return StateDict({key: value for key, value in tensors.items() if key not in dropped}, tuple(wrappings))


def _summary(key: str) -> str:
    """`body.fc.weight` is reported as `body.fc`; batch norm's counters are in every file and not reported."""
    if key.endswith("num_batches_tracked"):
        return ""
    return key.rsplit(".", 1)[0] if key.endswith((".weight", ".bias")) else key
