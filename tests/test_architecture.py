"""The house: imports go down only, and the runtime needs NumPy alone."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT

from retinaface_edge.runtime import Bundle

FLOORS = ("runtime", "calibration", "export", "benchmarks", "training")
MAY_IMPORT = {
    "runtime": set(),
    "calibration": {"runtime"},
    "export": {"calibration", "runtime"},
    "benchmarks": {"runtime"},
    "training": {"calibration", "export", "runtime"},
}
RUNTIME_NEEDS = {"numpy", *sys.stdlib_module_names}
TYPE_CHECKING_OR_LATE = {"openvino", "ai_edge_litert", "tflite_runtime", "onnxruntime", "PIL", "cv2", "cryptography"}


def imports(file: Path, top_level_only: bool = False) -> set[str]:
    """Absolute module names, with relative ones resolved against the file's place in the package."""
    parts = ("retinaface_edge", *file.relative_to(ROOT).with_suffix("").parts)
    tree = ast.parse(file.read_text())
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(parts[: -node.level]) + "." if node.level else ""
            found |= {f"{base}{node.module}"} if node.module else {f"{base}{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("room", FLOORS)
def test_imports_go_down_only(room: str) -> None:
    files = list((ROOT / room).rglob("*.py"))
    assert files
    for file in files:
        rooms = {name.split(".")[1] for name in imports(file) if name.startswith("retinaface_edge.")}
        assert rooms <= MAY_IMPORT[room] | {room}, file


def test_the_runtime_imports_numpy_and_nothing_else_before_it_is_asked() -> None:
    for file in (ROOT / "runtime").rglob("*.py"):
        top = {name.split(".")[0] for name in imports(file, top_level_only=True)} - {"retinaface_edge", "__future__"}
        assert top <= RUNTIME_NEEDS, file
        late = {name.split(".")[0] for name in imports(file)} - {"retinaface_edge", "__future__"}
        assert late <= RUNTIME_NEEDS | TYPE_CHECKING_OR_LATE, file


def with_only(packages: tuple[str, ...], folder: Path) -> Path:
    """A folder that holds links to some installed packages and nothing else, to stand in for site-packages."""
    folder.mkdir()
    for name in packages:
        spec = importlib.util.find_spec(name)
        assert spec is not None, name
        places = spec.submodule_search_locations or [str(spec.origin)]
        source = Path(next(iter(places)))
        (folder / source.name).symlink_to(source)
        for libraries in source.parent.glob(f"{name}.libs"):
            (folder / libraries.name).symlink_to(libraries)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, cwd=out)
    (built,) = out.glob("*.whl")
    return built


def run_outside(code: str, folders: list[Path], cwd: Path) -> str:
    """Run code in a Python that sees those folders and the standard library, and not this environment."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders)), "PYTHONNOUSERSITE": "1"}
    result = subprocess.run(
        [sys.executable, "-S", "-c", code], env=environment, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_wheel_is_small_and_pure(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    entries = zipfile.ZipFile(wheel).infolist()
    assert not [entry.filename for entry in entries if entry.filename.endswith(".npz")], "the demo's weights stay out"
    assert wheel.stat().st_size <= 300_000
    names = {entry.filename.split("/")[0] for entry in entries}
    assert {name for name in names if not name.endswith(".dist-info")} == {"retinaface_edge"}


def test_the_wheel_imports_where_only_numpy_is(wheel: Path, tmp_path: Path) -> None:
    site = with_only(("numpy",), tmp_path / "site")
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import sys, retinaface_edge as r; print(r.__file__);"
        "print([m for m in ('torch', 'cv2', 'PIL') if m in sys.modules])"
    )
    place, loaded = run_outside(code, [site], tmp_path).splitlines()
    assert place.startswith(str(site))
    assert loaded == "[]"


def test_the_wheel_detects_where_only_numpy_and_litert_are(wheel: Path, bundle: Bundle, tmp_path: Path) -> None:
    needed = ("numpy", "ai_edge_litert", "flatbuffers", "backports", "typing_extensions", "tqdm", "google")
    site = with_only(tuple(name for name in needed if importlib.util.find_spec(name)), tmp_path / "site")
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        "import numpy, sys; from retinaface_edge import Detector;"
        "from retinaface_edge.runtime.backends import installed;"
        "assert installed() == ['tflite'], installed();"
        f"d = Detector.load({str(bundle.path)!r}, backend='tflite', precision='int8');"
        "print(len(d.detect(numpy.zeros((480, 640, 3), numpy.uint8))));"
        "from retinaface_edge.cli.main import main;"
        f"code = main(['detect', {str(bundle.path)!r}, 'nothing.png', '--backend', 'openvino']); print(code);"
        "sys.stdout = sys.stderr; assert main(['doctor']) == 0"
    )
    (tmp_path / "nothing.png").touch()
    assert run_outside(code, [site], tmp_path).split() == ["0", "2"]


def test_importing_openvino_tells_nobody() -> None:
    """Its telemetry would send an event to a web service from a process that it forks."""
    code = (
        "import sys; from retinaface_edge.export.lower import openvino; import openvino;"
        "assert openvino.Core().available_devices;"
        "assert sys.modules.get('openvino_telemetry') is None;"
        "assert not [m for m in sys.modules if m.startswith('openvino_telemetry.')]"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)


def test_every_make_target_is_described() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {
        line.split(":")[0]
        for line in makefile.splitlines()
        if (line and line[0].islower() and ":  ##" in line) or "##" in line
    }
    phony = {name for line in makefile.splitlines() if line.startswith(".PHONY:") for name in line.split()[1:]}
    assert phony <= {target.split(" ")[0] for target in targets} | {"help"}
    help_text = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in phony:
        assert f"make {target} " in help_text
