"""Quantisation recipes: data that says how INT8 is made, and is shipped with what it made."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from retinaface_edge.runtime.errors import RetinaFaceEdgeError
from retinaface_edge.runtime.io.untrusted import read_json
from retinaface_edge.runtime.records import RecordError, from_json

from .range_estimators import ESTIMATORS
from .roles import PREFIX, Role, Roles, is_role, names_of

PRESET_FILE = Path(__file__).parent / "recipes.json"
PRESETS = ("accurate", "balanced", "fast")
WEIGHT_LIMITS = (127, 63)
IMAGE_COLUMNS = (1, 2, 4)
ACTIVATION_SUFFIX = ".activation"
"""Ends the name of a layer's activated result: a layer's pattern means that tensor, too."""


class RecipeError(RetinaFaceEdgeError):
    """A recipe that cannot be read or followed."""


@dataclass(frozen=True)
class Recipe:
    """How to quantise.

    `activations` names the range estimator of activations, except those whose name matches a pattern (as in file names)
    in `activations_of`; `before_activation` names that of values before a LeakyReLU. A pattern may be a role
    (`role:neck`); `resolved` replaces it by the names that it has in one network. `weight_limit` is the largest integer
    weight: 127, or 63 for processors whose 16-bit sums saturate. `symmetric` and `float_layers` are patterns (as in
    file names) of tensors with zero point 128 and of layers that stay float. `image_columns` is how many columns of the
    image the first convolution takes as one on TFLite, which changes no integer: 2 costs a Cortex-A72 the least, 4 a
    Cortex-A76.
    """

    name: str
    activations: str
    activations_of: Mapping[str, str]
    before_activation: str
    equalise: bool
    rounding: str
    weight_limit: int
    symmetric: tuple[str, ...]
    float_layers: tuple[str, ...]
    image_columns: int = 2

    def __post_init__(self) -> None:
        for key, value, known in (
            ("activations", self.activations, tuple(ESTIMATORS)),
            *(("activations_of", value, tuple(ESTIMATORS)) for value in self.activations_of.values()),
            ("before_activation", self.before_activation, ("activation-error", *ESTIMATORS)),
            ("rounding", self.rounding, ("nearest", "hessian")),
            ("weight_limit", self.weight_limit, WEIGHT_LIMITS),
            ("image_columns", self.image_columns, IMAGE_COLUMNS),
        ):
            if value not in known:
                raise RecipeError(f"the recipe's {key} is {value!r}; choose one of: {', '.join(map(str, known))}")
        roles = tuple(role.value for role in Role)
        for pattern in (*self.activations_of, *self.symmetric, *self.float_layers):
            if is_role(pattern) and pattern.removeprefix(PREFIX) not in roles:
                raise RecipeError(f"the recipe names the role {pattern!r}; choose one of: {', '.join(roles)}")

    def resolved(self, roles: Roles) -> Recipe:
        """The recipe for a network with those roles: names instead of roles."""
        return replace(
            self,
            activations_of={n: e for pattern, e in self.activations_of.items() for n in names_of(pattern, roles)},
            symmetric=tuple(name for pattern in self.symmetric for name in names_of(pattern, roles)),
            float_layers=tuple(name for pattern in self.float_layers for name in names_of(pattern, roles)),
        )

    def estimator(self, tensor: str) -> str:
        """The name of the range estimator of an activation."""
        names = (tensor, tensor.removesuffix(ACTIVATION_SUFFIX))
        return next(
            (e for pattern, e in self.activations_of.items() if any(fnmatch.fnmatchcase(n, pattern) for n in names)),
            self.activations,
        )

    def is_float(self, layer: str) -> bool:
        """Whether the layer of that name (`backbone.stem`, `score.0`) stays float."""
        return any(fnmatch.fnmatchcase(layer, pattern) for pattern in self.float_layers)

    def is_symmetric(self, tensor: str) -> bool:
        """Whether the tensor of that name has its zero point in the middle."""
        return any(fnmatch.fnmatchcase(tensor, pattern) for pattern in self.symmetric)

    def to_json(self) -> dict[str, Any]:
        """The recipe as data; `recipe_from_json` reads it."""
        return asdict(self)


def read_recipe(name: str) -> Recipe:
    """The preset of that name, or the recipe in the JSON file of that path. Raises `RecipeError`."""
    if name in PRESETS:
        return recipe_from_json({"name": name, **json.loads(PRESET_FILE.read_text(encoding="utf-8"))[name]}, name)
    try:
        content = read_json(Path(name))
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"{name} is neither a preset ({', '.join(PRESETS)}) nor a readable JSON file ({error})"
        ) from error
    return recipe_from_json(content, name)


def for_branch(recipe: Recipe) -> Recipe:
    """The recipe for the dense branch: no layer stays float, and ranges cover nine in ten batches of faces.

    The mean over batches, which a detector's activations use, would clip turned heads when most faces look ahead.
    """
    return replace(recipe, float_layers=(), activations="extremes-90", activations_of={})


def recipe_from_json(content: object, source: str) -> Recipe:
    """Read a recipe; fields without a default are required, unknown ones refused. Raises `RecipeError`."""
    try:
        return from_json(Recipe, content)
    except RecordError as error:
        raise RecipeError(f"{source} is not a recipe: {error}") from error
