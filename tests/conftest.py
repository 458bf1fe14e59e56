"""Fixtures of all rooms: the demo's checkpoint, its compiled forms, photographs, and the optional reference data.

What needs PyTorch or ONNX is imported when a test asks for it, so that the tests of the runtime run where neither is.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import settings

from retinaface_edge.calibration.dataset.image_set import ImageSet, image_folder, image_set
from retinaface_edge.calibration.dataset.synthetic_scenes import Scenes, portrait, scenes
from retinaface_edge.runtime import Bundle, Spec
from retinaface_edge.runtime.ops.letterbox import letterbox, letterbox_for

if TYPE_CHECKING:
    import onnx

    from retinaface_edge.calibration.calibrate import Calibration
    from retinaface_edge.calibration.recipe import Recipe
    from retinaface_edge.export.checkpoints.checkpoint import Checkpoint

settings.register_profile("tests", deadline=None, derandomize=True)
settings.load_profile("tests")

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
CALIBRATION_IMAGES = 24


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference photographs and annotations beside the checkout."""
    if not SHARED.is_dir():
        if os.environ.get("RETINAFACE_EDGE_REQUIRE_SHARED"):
            pytest.fail(f"{SHARED} is missing, and RETINAFACE_EDGE_REQUIRE_SHARED is set")
        pytest.skip("no ../shared/data beside the checkout")
    return SHARED


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the tests have for the user's cache folder: one for all workers, so that they build each bundle once.

    A run of many sessions, such as of mutants, names a folder for all of them.
    """
    base = tmp_path_factory.getbasetemp()
    folder = os.environ.get("RETINAFACE_EDGE_TEST_CACHE")
    return Path(folder) if folder else (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "caches"


@pytest.fixture(scope="session")
def stages(caches: Path) -> Path:
    """The stages of builds, where the command line looks for them when `caches` is the user's cache folder."""
    return caches / "retinaface-edge" / "stages"


@pytest.fixture(scope="session")
def spec() -> Spec:
    return Spec()


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    from retinaface_edge.export.checkpoints.demo import demo_checkpoint

    return demo_checkpoint()


@pytest.fixture(scope="session")
def fp32(checkpoint: Checkpoint, spec: Spec) -> onnx.ModelProto:
    from retinaface_edge.export.graph.export import to_onnx
    from retinaface_edge.export.models.deploy import Deploy

    return to_onnx(Deploy(checkpoint.model, spec).eval(), spec)


@pytest.fixture(scope="session")
def calibration_images(spec: Spec) -> ImageSet:
    return image_set(spec, scenes(CALIBRATION_IMAGES), "scenes")


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    from retinaface_edge.calibration.recipe import read_recipe

    return read_recipe("balanced")


@pytest.fixture(scope="session")
def calibration(fp32: onnx.ModelProto, spec: Spec, calibration_images: ImageSet, recipe: Recipe) -> Calibration:
    """By the default recipe, but with every layer in integers, as the integer reference has them."""
    from retinaface_edge.calibration.calibrate import calibrate

    return calibrate(fp32, spec, calibration_images, replace(recipe, float_layers=()))


@pytest.fixture(scope="session")
def int8(calibration: Calibration, spec: Spec) -> onnx.ModelProto:
    from retinaface_edge.calibration.qdq import quantise

    return quantise(calibration, spec)


@pytest.fixture(scope="session")
def bundle(
    request: pytest.FixtureRequest, spec: Spec, stages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """The demo's bundle, without the dense branch."""
    if prebuilt := prebuilt_bundle("plain"):
        return prebuilt
    from retinaface_edge.export.build import BuildRequest, build
    from retinaface_edge.export.checkpoints.demo import demo_file

    recipe: Recipe = request.getfixturevalue("recipe")  # which needs ONNX
    images, output = Scenes(CALIBRATION_IMAGES), tmp_path_factory.mktemp("build") / "bundle"
    return build(BuildRequest(demo_file(), (spec.width, spec.height), images, recipe, output, cache=stages))


@pytest.fixture(scope="session")
def mesh_bundle(
    request: pytest.FixtureRequest, spec: Spec, stages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """The bundle of `bundle`, with the demo's dense branch."""
    if prebuilt := prebuilt_bundle("mesh"):
        return prebuilt
    from retinaface_edge.export.build import BuildRequest, build
    from retinaface_edge.export.checkpoints.demo import demo_branch, demo_file

    recipe: Recipe = request.getfixturevalue("recipe")
    images, output = Scenes(CALIBRATION_IMAGES), tmp_path_factory.mktemp("mesh") / "bundle"
    return build(
        BuildRequest(demo_file(), (spec.width, spec.height), images, recipe, output, cache=stages, branch=demo_branch())
    )


def prebuilt_bundle(name: str) -> Bundle | None:
    """A bundle that another Python has built, for those on which PyTorch is absent (`make test-runtime`).

    It lies in the folder that RETINAFACE_EDGE_TEST_BUNDLES names; without that, and without PyTorch, the test skips.
    """
    if folder := os.environ.get("RETINAFACE_EDGE_TEST_BUNDLES"):
        return Bundle.load(Path(folder) / name)
    for package in ("torch", "onnx"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(
                f"building a bundle needs {package}; RETINAFACE_EDGE_TEST_BUNDLES may name a folder of built ones"
            )
    return None


@pytest.fixture(scope="session")
def photo_bundle(
    shared: Path, spec: Spec, recipe: Recipe, stages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """A bundle calibrated with a hundred real photographs."""
    from retinaface_edge.export.build import BuildRequest, build
    from retinaface_edge.export.checkpoints.demo import demo_file

    images, output = image_folder(shared / "calibration", 100), tmp_path_factory.mktemp("photo") / "bundle"
    built = build(BuildRequest(demo_file(), (spec.width, spec.height), images, recipe, output, cache=stages))
    assert built.manifest["provenance"]["calibration"]["skipped"] == []
    return built


@pytest.fixture(scope="session")
def photographs(spec: Spec) -> list[np.ndarray]:
    """Network inputs: the portrait, and scenes that calibration has not seen."""
    frames = [portrait(), *scenes(3, seed=1)]
    inputs = []
    for frame in frames:
        inputs.append(np.empty(spec.input_shape, np.uint8))
        letterbox(spec, letterbox_for(spec, frame.shape[1], frame.shape[0]), frame, inputs[-1])
    return inputs
