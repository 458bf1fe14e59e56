"""What ships to adopt the project: pipelines, image and service, as far as a shell can run them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml
from conftest import ROOT
from PIL import Image
from test_docs import shell

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.runtime import Bundle

__all__ = ["shell"]
DEPLOY = ROOT / "deploy"


def steps(pipeline: str) -> list[str]:
    """The shell commands of a pipeline's job that makes the bundle."""
    content = yaml.safe_load((DEPLOY / "ci" / pipeline).read_text())
    if pipeline == "gitlab-ci.yml":
        return ["\n".join(content["bundle"]["script"])]
    (job,) = content["jobs"].values()
    return [step["run"] for step in job["steps"] if "run" in step and "if" not in step]


@pytest.fixture
def repository(stages: Path, bundle: Bundle, tmp_path: Path) -> Path:
    """A user's repository: the pipeline's script, photographs to gate on, and the stages of an earlier run."""
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    (tmp_path / "photos" / "gate").mkdir(parents=True)
    for out in ("out", "a", "b", "c"):
        (tmp_path / out).mkdir()
        (tmp_path / out / "cache").symlink_to(stages)
    Image.fromarray(portrait()[:, :, ::-1]).save(tmp_path / "photos" / "gate" / "0.png")
    return tmp_path


@pytest.fixture
def installed(shell: dict[str, str]) -> dict[str, str]:
    """A shell in whose environment the demo's model is, and what the pipelines install."""
    line = 'pip install "${RETINAFACE_EDGE}[demo,bench,sign]"'
    subprocess.run(["bash", "-c", line], env=shell, check=True, capture_output=True)
    return shell


@pytest.mark.parametrize("pipeline", ["github-actions.yml", "gitlab-ci.yml"])
def test_a_pipeline_builds_gates_and_packs_a_signed_bundle(
    pipeline: str, repository: Path, installed: dict[str, str]
) -> None:
    key = repository / "secret.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", repository / "key.pub"], check=True)
    environment = {
        **installed,
        "BUILD_OPTIONS": "--images 24",
        "CHECKPOINT": "demo",
        "CALIBRATION": "demo",
        "PHOTOS": "photos/gate",
        "PYTORCH": "https://index",
        "RUNNER_TEMP": str(repository),
        "SIGNING_KEY_PEM": key.read_text(),
        "BUNDLE_SIGNING_KEY": str(key),
    }
    for step in steps(pipeline):
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", step], cwd=repository, env=environment, capture_output=True, text=True
        )
        assert result.returncode in (0, 1), result.stderr
        if (
            result.returncode == 1
        ):  # the shipped gate is for whole sets; what it says of one picture is not at stake here
            assert "drift" in result.stdout
    out = repository / "out"
    Bundle.load(out / "bundle", repository / "key.pub").verify()
    assert "testsuite" in (out / "drift.xml").read_text()
    assert json.loads((out / "build.json").read_text())["manifest_digest"]


def test_the_archive_has_the_same_bytes_each_time(repository: Path, installed: dict[str, str]) -> None:
    """And a gate that fails stops the script before it is made."""
    script = (repository / "deploy" / "ci" / "bundle.sh").read_text()
    environment = {
        **installed,
        "CHECKPOINT": "demo",
        "CALIBRATION": "demo",
        "PHOTOS": "photos/gate",
        "BUILD_OPTIONS": "--images 24",
        "SPEED_GATE": "none",
    }
    digests = []
    for gate, out in (("none", "a"), ("none", "b"), ("impossible.json", "c")):
        (repository / "script.sh").write_text(script.replace("--json", f"--gate {gate} --json", 1))
        rule = {"name": "never", "floor": "detections", "figure": "missed", "at_most": -1}
        (repository / "impossible.json").write_text(json.dumps({"format_version": 1, "rules": [rule]}))
        result = subprocess.run(
            ["bash", "script.sh"], cwd=repository, env={**environment, "OUT": out}, capture_output=True, text=True
        )
        archive = repository / out / "bundle.tar.gz"
        if gate == "none":
            assert result.returncode == 0, result.stderr
            digests.append(hashlib.sha256(archive.read_bytes()).hexdigest())
        else:
            assert result.returncode == 1, result.stderr
            assert not archive.exists()
    assert digests[0] == digests[1]
    with tarfile.open(repository / "a" / "bundle.tar.gz") as tar:
        assert all(not name.startswith(("/", "..")) for name in tar.getnames())
        tar.extractall(repository / "device", filter="data")
    Bundle.load(repository / "device" / "bundle").verify()
    assert (repository / "a" / "sbom.cdx.json").is_file()


@pytest.mark.parametrize("passes", [True, False])
def test_speed_is_judged_and_what_is_too_slow_is_not_packed(
    passes: bool, repository: Path, installed: dict[str, str], bundle: Bundle
) -> None:
    script = (repository / "deploy" / "ci" / "bundle.sh").read_text()
    (repository / "script.sh").write_text(script.replace("--json", "--gate none --json", 1))
    rule = {"name": "speed", "floor": "bench", "figure": "p50_ms", "at_most": 1e9 if passes else 0}
    (repository / "speed.json").write_text(json.dumps({"format_version": 1, "rules": [rule]}))
    environment = {
        **installed,
        "CHECKPOINT": "demo",
        "CALIBRATION": "demo",
        "PHOTOS": "photos/gate",
        "BUILD_OPTIONS": "--images 24",
        "SPEED_GATE": "--gate speed.json --artifact tflite*int8",
        "OUT": "a",
    }
    result = subprocess.run(["bash", "script.sh"], cwd=repository, env=environment, capture_output=True, text=True)
    assert result.returncode == (0 if passes else 1), result.stdout + result.stderr
    assert ("<failure" in (repository / "a" / "bench.xml").read_text()) is not passes
    assert (repository / "a" / "bundle.tar.gz").exists() is passes


@pytest.mark.parametrize("missing", ["CHECKPOINT", "CALIBRATION", "PHOTOS"])
def test_the_script_builds_nothing_that_was_not_asked_for(missing: str, tmp_path: Path) -> None:
    """A copied workflow that lacks a setting would otherwise ship the demo's model."""
    given = {name: "x" for name in ("CHECKPOINT", "CALIBRATION", "PHOTOS") if name != missing}
    result = subprocess.run(
        ["bash", DEPLOY / "ci" / "bundle.sh"], cwd=tmp_path, env={"PATH": os.environ["PATH"], **given},
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode != 0
    assert f"set {missing} to" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pipeline", ["github-actions.yml", "gitlab-ci.yml"])
def test_pipelines_name_model_and_photographs(pipeline: str) -> None:
    text = (DEPLOY / "ci" / pipeline).read_text()
    for name in ("CHECKPOINT", "CALIBRATION", "PHOTOS"):
        assert re.search(rf"^ +{name}: \S+$", text, re.MULTILINE), name


def test_pipelines_publish_what_the_script_writes() -> None:
    script = (DEPLOY / "ci" / "bundle.sh").read_text()
    written = set(re.findall(r"\$out/([\w.-]+\.[\w.]+)", script))
    for pipeline in ("github-actions.yml", "gitlab-ci.yml"):
        for name in re.findall(r"out/([\w-]+\.[\w.]+)", (DEPLOY / "ci" / pipeline).read_text()):
            assert name in written, f"{pipeline}: {name}"


def test_the_image_copies_what_there_is_and_all_that_the_package_needs() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    copied = {word for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE) for word in line.split()[:-1]}
    assert all((ROOT / name).exists() for name in copied)
    rooms = {link.name for link in (ROOT / "retinaface_edge").iterdir() if link.is_symlink()}
    assert rooms | {"retinaface_edge", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= copied
    assert re.search(r"^USER (?!root)", text, re.MULTILINE)


def test_the_service_is_what_systemd_takes_and_its_commands_parse(tmp_path: Path) -> None:
    from retinaface_edge.cli.main import command_line

    unit = (DEPLOY / "systemd" / "retinaface-edge.service").read_text()
    program = "/opt/retinaface-edge/bin/retinaface-edge"
    commands = re.findall(rf"^Exec\w+={program} (.*)$", unit, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        command_line().parse_args(command.split())
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here")
    local = tmp_path / "retinaface-edge.service"
    local.write_text(unit.replace(program, "/bin/true"))
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", local], capture_output=True, text=True, env={**os.environ}
    )
    assert result.returncode == 0, result.stderr
    assert "retinaface-edge.service" not in result.stderr
