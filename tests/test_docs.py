"""The documentation: every command on its pages is run here, in the order in which it stands there."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import page_environment
import pytest
import tomllib
from conftest import ROOT

from retinaface_edge.cli.main import command_line, main

PAGES = sorted((ROOT / "docs").rglob("*.md"))
COMMANDS = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def shell(caches: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables of a shell with a virtual environment of its own, empty but for Python and pip."""
    folder = tmp_path_factory.mktemp("shell")
    environment = folder / "environment"
    page_environment.make(environment)
    page_environment.stand_in_for_python(folder, environment / "bin" / "python")
    kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "VIRTUAL_ENV"}}
    return {
        **kept,
        "PATH": f"{folder}:{environment / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "RETINAFACE_EDGE": page_environment.WHEEL,
        "XDG_CACHE_HOME": str(caches),
    }


@pytest.mark.parametrize(
    "page", [page for page in PAGES if COMMANDS.search(page.read_text())], ids=lambda page: page.stem
)
def test_every_command_of_a_page_works_with_what_the_page_installs(
    page: Path, shell: dict[str, str], tmp_path: Path
) -> None:
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    for block in COMMANDS.findall(page.read_text()):
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block], cwd=tmp_path, env=shell, capture_output=True, text=True
        )
        assert result.returncode == 0, f"{block}\n{result.stdout}\n{result.stderr}"


def test_what_a_page_does_not_install_is_not_there(shell: dict[str, str]) -> None:
    def run(line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["bash", "-euo", "pipefail", "-c", line], env=shell, capture_output=True, text=True)

    assert "No module named" in run("python -c 'import numpy'").stderr
    assert run('pip install "${RETINAFACE_EDGE}[tflite]"').returncode == 0
    assert run("retinaface-edge --version").stdout == f"retinaface-edge {page_environment.VERSION}\n"
    assert run("python -c 'import numpy, ai_edge_litert.interpreter'").stderr == ""
    for absent in ("PIL", "torch", "onnxruntime", "skimage"):
        assert "No module named" in run(f"python -c 'import {absent}'").stderr
    assert "on no index" in run('pip install "retinaface-edge[tflite]"').stderr
    assert "KeyError: 'images2'" in run('pip install "${RETINAFACE_EDGE}[images2]"').stderr


def test_one_page_says_what_to_install_and_its_wheel_is_the_one_that_is_made() -> None:
    assert f"dist/{Path(page_environment.WHEEL).name}" in (ROOT / "docs" / "install.md").read_text()
    for page in (*PAGES, *(ROOT / "deploy").rglob("*.*")):
        text = page.read_text()
        assert not re.search(r"pip install [^`\n]*'?retinaface-edge\[", text), page
        if "RETINAFACE_EDGE}" in text and page.suffix == ".md" and page.stem != "install":
            assert "install.md)" in text, page


def test_commands_in_the_text_are_parsed_as_they_stand() -> None:
    """Commands with the reader's own files in them are not run, but each is one that the parser takes."""
    shown = re.compile(r"`(?:retinaface-edge )?((?:build|drift|eval|bench|verify|inspect|detect) [^`]*)`")
    found = [
        (page, command) for page in PAGES if page.stem != "commands" for command in shown.findall(page.read_text())
    ]
    assert len(found) >= 6
    for page, command in found:
        words = command.split()
        if words[0] == "build" and "--output" not in words:
            words += ["--output", "x"]
        if words[0] == "inspect" and words[1].startswith("--"):
            words.insert(1, "BUNDLE")
        if words[0] == "verify" and words[1].startswith("--"):
            words.insert(1, "BUNDLE")
        try:
            command_line().parse_args(words)
        except SystemExit:
            pytest.fail(f"{page.name} shows a command that does not exist: {command}")


def test_commands_of_make_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for page in (*PAGES, *ROOT.glob("*.md")):
        for target in re.findall(r"`make ([a-z0-9-]+)`", page.read_text()):
            assert f".PHONY: {target}\n" in makefile, f"{page.name}: make {target}"


def test_links_between_pages_lead_somewhere() -> None:
    generated = {"images", "reference/commands.md"}
    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            target = (page.parent / link).resolve().relative_to(ROOT / "docs")
            assert (ROOT / "docs" / target).exists() or {str(target), target.parts[0]} & generated, f"{page}: {link}"


def test_links_of_documents_at_the_root_lead_somewhere() -> None:
    for page in ROOT.glob("*.md"):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (ROOT / link).exists(), f"{page.name}: {link}"


def test_every_page_is_in_the_navigation() -> None:
    """What the navigation lacks can only be found by search."""
    navigation = (ROOT / "mkdocs.yml").read_text().split("nav:")[1]
    for page in PAGES:
        assert str(page.relative_to(ROOT / "docs")) in navigation, page


def test_every_decision_is_in_the_list_of_decisions() -> None:
    folder = ROOT / "docs" / "decisions"
    listed = re.findall(r"\]\(([^)]+)\)", (folder / "index.md").read_text())
    assert listed == sorted(page.name for page in folder.glob("[0-9]*.md"))
    for name in listed:
        text = (folder / name).read_text()
        for part in ("**Decision.**", "**Why.**", "**Cost.**", "**What would change it.**"):
            assert part in text, f"{name} has no {part}"


def verbs() -> dict[str, argparse.ArgumentParser]:
    (action,) = (action for action in command_line()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(action.choices)


@pytest.mark.parametrize("verb", verbs())
def test_the_help_of_a_verb_fits_a_screen_and_its_example_parses(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = verbs()[verb].format_help()
    assert len(text.splitlines()) <= 50
    examples = re.findall(r"example: retinaface-edge (.*)", " ".join(text.split()))
    assert len(examples) == 1
    assert examples[0].split()[0] == verb
    command_line().parse_args(examples[0].split(" > ")[0].split())


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "tcsh"])
def test_completion_names_every_verb_and_option(shell_name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell_name]) == 0
    script = capsys.readouterr().out
    for verb in verbs():
        assert verb in script
    assert shell_name == "tcsh" or "--calibration" in script  # tcsh completes the first word only


def test_bash_completes_a_verb_and_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    (tmp_path / "completion").write_text(capsys.readouterr().out)
    code = (
        "source completion; COMP_WORDS=(retinaface-edge {words}); COMP_CWORD={last};"
        "_shtab_retinaface_edge; echo ${{COMPREPLY[@]}}"
    )

    def completed(*words: str) -> list[str]:
        script = code.format(words=" ".join(words), last=len(words))
        result = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
        return result.stdout.split()

    assert completed("ver") == ["verify"]
    assert "--calibration" in completed("build", "--cal")


def test_the_site_is_built_strictly(tmp_path: Path) -> None:
    """Links, navigation and the docstrings of the reference; the pictures, which take a build, are stood in for."""
    pytest.importorskip("mkdocs")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    (tmp_path / "docs" / "images").mkdir(exist_ok=True)
    for name in ("faces", "leaky", "ranges", "steps"):
        (tmp_path / "docs" / "images" / f"{name}.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (tmp_path / "docs" / "reference" / "commands.md").write_text("# Command line\n")
    (tmp_path / "retinaface_edge").symlink_to(ROOT / "retinaface_edge")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    reference = (tmp_path / "build" / "site" / "reference" / "python.html").read_text()
    for name in ("Detector", "detect_many", "postprocess", "check_signature"):
        assert f">{name}<" in reference


def test_extras_that_error_messages_name_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set()
    for file in (ROOT / "retinaface_edge").rglob("*.py"):
        named |= set(re.findall(r"retinaface-edge\[([a-z-]+)\]", file.read_text()))
        named |= set(re.findall(r'extra="([a-z-]+)"', file.read_text()))
    for room in ("runtime", "export", "calibration", "benchmarks"):
        for file in (ROOT / room).rglob("*.py"):
            named |= set(re.findall(r"retinaface-edge\[([a-z-]+)\]", file.read_text()))
    assert {"bench", "build", "completion", "eval", "sign"} <= named <= set(extras)
