"""Virtual environments of what a page of the documentation installs, and nothing else, made without a network.

    python tests/page_environment.py venv FOLDER
    python tests/page_environment.py pip FOLDER install "WHEEL[extra,extra]"

`pip` links the packages of the environment that runs the tests: those that the extras require, and what these require.
"""

from __future__ import annotations

import sys
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
OURS = "retinaface-edge"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
WHEEL = f"/wheels/retinaface_edge-{VERSION}-py3-none-any.whl"
"""What `RETINAFACE_EDGE` is for the pages. There is no such file: the code under test stands in for it."""
WITH_A_VALUE = ("--constraint", "--extra-index-url")


def make(folder: Path) -> None:
    """An environment with Python and `pip`, and no package."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    _script(folder / "bin" / "pip", f'exec {sys.executable} {__file__} pip {folder.resolve()} "$@"')


def stand_in_for_python(folder: Path, python: Path) -> None:
    """Programs `python` and `python3` in `folder` that run `python`, and make environments by `make`."""
    for name in ("python", "python3"):
        making = f'if [ "$1 $2" = "-m venv" ]; then exec {sys.executable} {__file__} venv "$3"; fi'
        _script(folder / name, f'{making}\nexec {python} "$@"')


def pip(folder: Path, arguments: list[str]) -> None:
    """Install what `pip ARGUMENTS` would. Fails for what is on no index, and for an extra that does not exist."""
    assert arguments.pop(0) == "install", "pages only install"
    wanted: list[str] = []
    while arguments:
        word = arguments.pop(0)
        if word in WITH_A_VALUE:
            value = arguments.pop(0)
            assert word != "--constraint" or Path(value).is_file(), f"there is no {value}"
        else:
            wanted.append(word)
    site = next((folder / "lib").glob("python*/site-packages"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements: list[str] = []
    for word in wanted:
        package, _, extras = word.rstrip("]").partition("[")
        assert package == WHEEL, f"{package} is on no index"
        requirements += project["dependencies"]
        for extra in filter(None, extras.split(",")):
            requirements += project["optional-dependencies"][extra]
        _install_ours(folder, site)
    for found in _closure(requirements, project["optional-dependencies"]):
        _link(found, site)


def _closure(requirements: Iterable[str], extras: dict[str, list[str]]) -> list[Distribution]:
    """The installed distributions that meet the requirements and, in turn, theirs."""
    found: dict[str, Distribution] = {}
    open_, seen = [Requirement(text) for text in requirements], set[str]()
    while open_:
        requirement = open_.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        name = canonicalize_name(requirement.name)
        if name == OURS:
            open_ += [Requirement(text) for extra in requirement.extras for text in extras[extra]]
            continue
        found[name] = distribution(name)
        assert requirement.specifier.contains(found[name].version, prereleases=True), requirement
        for text in found[name].requires or ():
            required = Requirement(text)
            if required.marker is None or any(
                required.marker.evaluate({"extra": extra}) for extra in (requirement.extras or {""})
            ):
                open_.append(required)
    return list(found.values())


def _link(found: Distribution, site: Path) -> None:
    """Link a distribution's packages, modules and metadata; of a namespace package only its own part."""
    for file in found.files or ():
        if file.parts[0] == ".." or "__pycache__" in file.parts:
            continue
        source, target = Path(str(found.locate_file(""))), site
        for part in file.parts:
            source, target = source / part, target / part
            if target.is_symlink() or target.is_file():
                break
            if source.is_file() or (source / "__init__.py").is_file() or part.endswith((".dist-info", ".libs")):
                target.symlink_to(source)
                break
            target.mkdir(exist_ok=True)


def _install_ours(folder: Path, site: Path) -> None:
    package = site / "retinaface_edge"
    if package.exists():
        return
    package.symlink_to(ROOT / "retinaface_edge")
    metadata = site / f"retinaface_edge-{VERSION}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {OURS}\nVersion: {VERSION}\n")
    script = folder.resolve() / "bin" / OURS
    # As pip writes it: processes that it spawns import it.
    main = "if __name__ == '__main__':\n    raise SystemExit(main())"
    script.write_text(f"#!{folder.resolve()}/bin/python\nfrom retinaface_edge.__main__ import main\n{main}\n")
    script.chmod(0o755)


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


if __name__ == "__main__":
    if sys.argv[1] == "venv":
        make(Path(sys.argv[2]))
    else:
        pip(Path(sys.argv[2]), sys.argv[3:])
