"""Roles of layers in a detector, so that one recipe means the same for every network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

PREFIX = "role:"
"""Marks a role where a recipe takes a pattern of layer names: `role:stem`."""


class Role(str, Enum):
    """A part of a detector.

    `STEM`: the convolution that reads the image. `FIRST_BLOCK` and `FIRST_STAGE`: what follows it, at the highest
    resolution. `NECK`: the pyramid and the context modules. `HEADS`: the convolutions that predict.
    """

    STEM = "stem"
    FIRST_BLOCK = "first-block"
    FIRST_STAGE = "first-stage"
    NECK = "neck"
    HEADS = "heads"


Roles = Mapping[Role, Sequence[str]]
"""For each role, patterns (as in file names) of the names of layers and tensors that have it."""

RETINAFACE: Roles = {
    Role.STEM: ("backbone.stem",),
    Role.FIRST_BLOCK: ("backbone.stages.0.0.*",),
    Role.FIRST_STAGE: ("backbone.stages.0.*",),
    Role.NECK: ("pyramid.*", "context.*"),
    Role.HEADS: ("score.*", "box.*", "landmark.*"),
}
"""The modules of this project's RetinaFace, whatever its backbone."""


def is_role(pattern: str) -> bool:
    """Whether a recipe's pattern names a role instead of layers."""
    return pattern.startswith(PREFIX)


def names_of(pattern: str, roles: Roles) -> tuple[str, ...]:
    """The patterns of names that a recipe's pattern stands for: those of its role, or itself.

    Raises `ValueError` for a role that does not exist. A network without that part has no such layers.
    """
    return tuple(roles.get(Role(pattern.removeprefix(PREFIX)), ())) if is_role(pattern) else (pattern,)
