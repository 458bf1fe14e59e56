"""The architecture: imports go down and never in a circle, files and functions are short, the runtime needs NumPy."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
import tomllib
from conftest import ROOT

from retinaface_edge.runtime import Bundle

PACKAGE = "retinaface_edge"
MAY_IMPORT = {
    "runtime": set(),
    "calibration": {"runtime"},
    "export": {"calibration", "runtime"},
    "benchmarks": {"runtime"},
    "training": {"calibration", "export", "runtime"},
    PACKAGE: {"runtime", "calibration", "export", "benchmarks", "training"},
}
"""The rooms, lowest first. The last is the front door: public names and the command line."""

RUNTIME_NEEDS = {"numpy", *sys.stdlib_module_names}
TYPE_CHECKING_OR_LATE = {
    "openvino",
    "ai_edge_litert",
    "tflite_runtime",
    "onnxruntime",
    "PIL",
    "cv2",
    "cryptography",
    "pandas",
    "picamera2",
    "pillow_heif",
    "supervision",
}

MOST_FILES, MOST_FILE_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 15, 350, 60, 7


def files_of(room: str) -> list[Path]:
    """The Python files of a room, without those behind the links by which the front door shows the other rooms."""
    inside = sorted((ROOT / room).rglob("*.py"))
    return [file for file in inside if room != PACKAGE or file.relative_to(ROOT).parts[1] not in MAY_IMPORT]


FILES = {room: files_of(room) for room in MAY_IMPORT}
ALL_FILES = [file for files in FILES.values() for file in files]


def place(file: Path) -> tuple[str, ...]:
    """Where a file is in the package, for instance `("runtime", "ops", "align")`; a package's own is `__init__`."""
    return file.relative_to(ROOT / PACKAGE if file.is_relative_to(ROOT / PACKAGE) else ROOT).with_suffix("").parts


PLACES = {place(file) for file in ALL_FILES}


def imported(file: Path, top_level_only: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Every import in a file with the absolute name of what it imports, late ones and those for type checkers too."""
    here = (PACKAGE, *place(file))
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parent = here[: len(here) - node.level] if node.level else ()
            module = [*parent, *(node.module.split(".") if node.module else ())]
            yield from ((node, ".".join([*module, alias.name])) for alias in node.names)


def own_place(name: str) -> tuple[str, ...] | None:
    """The file of ours that an imported name means: a module, a package, or the module that has the name; or None."""
    head, *parts = name.split(".")
    if head != PACKAGE:
        return None
    for length in (len(parts), len(parts) - 1):
        found = tuple(parts[:length])
        for candidate in (found, (*found, "__init__")):
            if candidate in PLACES:
                return candidate
    raise AssertionError(f"{name} is none of our modules")


IMPORTS = {
    place(file): {target for _, name in imported(file) if (target := own_place(name)) and target != place(file)}
    for file in ALL_FILES
}
FOLDERS = sorted({location[:depth] for location in PLACES for depth in range(len(location))})


def room_of(location: tuple[str, ...]) -> str:
    return location[0] if location[0] in MAY_IMPORT else PACKAGE


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_rooms_import_downwards_only(room: str) -> None:
    assert FILES[room]
    for file in FILES[room]:
        for target in IMPORTS[place(file)]:
            assert room_of(target) in MAY_IMPORT[room] | {room}, f"{file} imports {'.'.join(target)}"


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: ".".join((PACKAGE, *folder)))
def test_what_lies_in_a_folder_is_free_of_import_circles(folder: tuple[str, ...]) -> None:
    """Files and sub-packages of one folder, each sub-package taken as a whole, can be put in an order.

    Over all folders this also means that no files import each other in a circle.
    """
    depth = len(folder)
    graph: dict[str, set[str]] = {}
    for location, targets in IMPORTS.items():
        if location[:depth] == folder:
            inside = {target[depth] for target in targets if target[:depth] == folder}
            graph.setdefault(location[depth], set()).update(inside - {location[depth]})
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_are_relative_inside_a_room_and_absolute_across(room: str) -> None:
    for file in FILES[room]:
        for node, name in imported(file):
            target = own_place(name)
            if target is None or target == ("__init__",):
                continue
            relative = isinstance(node, ast.ImportFrom) and node.level > 0
            assert relative == (room_of(target) == room), f"{file}:{node.lineno} imports {name}"


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_files_and_functions_are_short(room: str) -> None:
    found = []
    for file in FILES[room]:
        if (lines := len(file.read_text(encoding="utf-8").splitlines())) > MOST_FILE_LINES:
            found.append(f"{file.relative_to(ROOT)}: {lines} lines, at most {MOST_FILE_LINES}")
        for function in functions(file):
            if (lines := (function.end_lineno or 0) - function.lineno + 1) > MOST_FUNCTION_LINES:
                found.append(
                    f"{file.relative_to(ROOT)}: {function.name} has {lines} lines, at most {MOST_FUNCTION_LINES}"
                )
    assert not found, "\n".join(found)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_public_functions_have_few_parameters(room: str) -> None:
    found = []
    for file in FILES[room]:
        for function in functions(file):
            given = function.args
            names = [argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            if not function.name.startswith("_") and count > MOST_PARAMETERS:
                found.append(f"{file.relative_to(ROOT)}: {function.name} has {count}, at most {MOST_PARAMETERS}")
    assert not found, "\n".join(found)


def test_folders_hold_few_files() -> None:
    """Data files count too: a folder is read as a list."""
    for folder in {file.parent for file in ALL_FILES}:
        files = [entry.name for entry in folder.iterdir() if entry.is_file()]
        assert len(files) <= MOST_FILES, f"{folder.relative_to(ROOT)}: {len(files)} files"


def test_every_package_is_in_the_wheel() -> None:
    """The list in pyproject.toml is what is installed; a folder that it lacks works in a checkout only."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    packages = {".".join((PACKAGE, *location[:-1])) for location in PLACES if location[-1] == "__init__"}
    assert listed == sorted(packages)
    for location in PLACES:
        assert ".".join((PACKAGE, *location[:-1])) in packages, f"{location} lies in a folder without __init__.py"


def outside(file: Path, top_level_only: bool = False) -> set[str]:
    """The packages that a file imports, without our own."""
    return {name.split(".")[0] for _, name in imported(file, top_level_only)} - {PACKAGE, "__future__"}


def test_the_runtime_imports_numpy_and_nothing_else_before_it_is_asked() -> None:
    for file in FILES["runtime"]:
        assert outside(file, top_level_only=True) <= RUNTIME_NEEDS, file
        assert outside(file) <= RUNTIME_NEEDS | TYPE_CHECKING_OR_LATE, file


def test_the_front_door_imports_the_runtime_and_nothing_else_before_it_is_asked() -> None:
    """So that `detect` works where only NumPy and one backend are: torch_reference.py is imported by one verb, late."""
    for file in FILES[PACKAGE]:
        assert outside(file, top_level_only=True) <= RUNTIME_NEEDS, file
        if file.name == "torch_reference.py":
            continue
        for _, name in imported(file, top_level_only=True):
            if target := own_place(name):
                assert room_of(target) in {"runtime", PACKAGE}, f"{file} imports {name} at its top"
                assert target != ("torch_reference",), f"{file} imports {name} at its top"


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
    # 300 kB before the other backbones and detectors, serve, choose, identity, the cost counter and JSON Schemas came.
    assert wheel.stat().st_size <= 680_000
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
