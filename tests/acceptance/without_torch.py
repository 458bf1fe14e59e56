"""The tests of the runtime where PyTorch is absent, on other versions of Python (`make test-runtime`).

    python tests/acceptance/without_torch.py BUNDLES

BUNDLES holds two bundles of the demo, `plain` and `mesh`, which the development environment has built. Versions of
Python that are not found are named and left out; where none is found, the one that runs this script takes their place.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSIONS = ("3.10", "3.13")
ABSENT = ("torch", "onnx")


def interpreter(version: str) -> str | None:
    """A Python of this version: on the path, or installed by pyenv or uv."""
    if found := shutil.which(f"python{version}"):
        works = subprocess.run([found, "--version"], capture_output=True, text=True)
        if works.returncode == 0 and works.stdout.startswith(f"Python {version}."):  # pyenv has stand-ins that fail
            return found
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    uv = Path.home() / ".local" / "share" / "uv" / "python"
    places = [*pyenv.glob(f"versions/{version}.*"), *uv.glob(f"cpython-{version}.*")]
    return next((str(place / "bin" / "python3") for place in sorted(places)), None)


def environment(python: str, folder: Path) -> Path:
    """A virtual environment in `folder` with what the runtime's tests need; gives its interpreter."""
    inside = folder / "bin" / "python"
    if not inside.exists():
        subprocess.run([python, "-m", "venv", folder], check=True)
    subprocess.run(
        [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", f"{ROOT}[test]"], check=True
    )
    return inside


def run(python: Path, bundles: Path) -> bool:
    """Run the tests; true where they pass and what must be absent is."""
    found = f"import importlib.util as u; raise SystemExit(any(map(u.find_spec, {ABSENT})))"
    if subprocess.run([python, "-c", found], cwd=bundles).returncode:
        print(f"{python} has one of {', '.join(ABSENT)}, so these tests would prove nothing", file=sys.stderr)
        return False
    tests = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/runtime"]
    variables = {**os.environ, "RETINAFACE_EDGE_TEST_BUNDLES": str(bundles.resolve())}
    return subprocess.run(tests, cwd=ROOT, env=variables).returncode == 0


def main() -> int:
    """Every version that is found, one after the other."""
    parser = argparse.ArgumentParser(description="Test the runtime where PyTorch is absent.")
    parser.add_argument("bundles", type=Path, help="folder of the bundles `plain` and `mesh`")
    options = parser.parse_args()
    pythons = {version: interpreter(version) for version in VERSIONS}
    for version in (version for version, python in pythons.items() if python is None):
        print(f"Python {version} is not installed here: left out", flush=True)
    chosen = {version: python for version, python in pythons.items() if python}
    if not chosen:
        chosen = {f"{sys.version_info.major}.{sys.version_info.minor}": sys.executable}
    passed = []
    for version, python in chosen.items():
        print(f"Python {version}, without {' and '.join(ABSENT)}", flush=True)
        inside = environment(python, options.bundles.resolve().parent / f"python{version}")
        passed.append(run(inside, options.bundles))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
