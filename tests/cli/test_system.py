"""Versions, quiet and verbose runs, and the JSON of `verify`, `inspect` and `doctor`."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest

import retinaface_edge
from retinaface_edge.cli.main import main
from retinaface_edge.cli.progress import bar, be_quiet, say
from retinaface_edge.runtime import Bundle


def test_the_version_is_that_of_the_installed_package(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"retinaface-edge {version('retinaface-edge')}\n"
    assert retinaface_edge.__version__ == version("retinaface-edge")


@pytest.mark.parametrize("verb", ["verify", "inspect", "doctor"])
def test_json_has_what_the_text_says(
    verb: str, bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [verb] if verb == "doctor" else [verb, str(bundle.path)]
    assert main([*arguments, "--json", "-"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert main([*arguments, "--json", str(tmp_path / "out.json")]) == 0
    text = capsys.readouterr().out
    if verb == "verify":
        assert content == {"bundle": str(bundle.path), "files": len(bundle.files), "signed_by": None}
        assert f"{content['files']} files" in text
    elif verb == "inspect":
        assert content["format_version"] == bundle.manifest["format_version"]
        assert len(content["artifacts"]) == len(bundle.artifacts)
    else:
        assert content["processor"] in text and content["target"] in text
    if verb != "doctor":  # whose state changes
        assert json.loads((tmp_path / "out.json").read_text()) == content


def test_quiet_means_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    be_quiet(True)
    try:
        say("a stage")
        assert list(bar([1, 2, 3])) == [1, 2, 3]
        assert tuple(capsys.readouterr()) == ("", "")
    finally:
        be_quiet(False)
    say("a stage")
    assert capsys.readouterr().err == "a stage\n"


def test_verbose_shows_the_traceback_of_an_error_and_nothing_else_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "none"]) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert main(["inspect", "none", "-v"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown and shown.splitlines()[-1].startswith("retinaface-edge: error: ")
