"""The shipped service, supervised as its unit file says: its camera is late, stalls, hangs up and goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT

from retinaface_edge.cli.exit_codes import TERMINATED
from retinaface_edge.runtime import Bundle
from retinaface_edge.runtime.io import frame_source
from retinaface_edge.runtime.io.frame_source import FrameSource, Stream, opencv

pytest.importorskip("cv2", reason="the extra `video` is not installed")

from cli.cameras import Camera, End, Turn, serving

UNIT = ROOT / "deploy" / "systemd" / "retinaface-edge.service"
SECONDS = 90.0
IMPATIENT = (
    "import sys; from retinaface_edge.runtime.io import frame_source; frame_source.WAIT_MILLISECONDS = 500; "
    "frame_source.LONGEST_PAUSE = 1.0; from retinaface_edge.cli.main import main; sys.exit(main())"
)
"""The command line, with waits that a test can wait for."""


def settings() -> dict[str, list[str]]:
    """What the unit file says."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        name, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            found.setdefault(name, []).extend(value.split())
    return found


class Supervisor(threading.Thread):
    """Runs the command of the unit file and starts it again as `Restart=on-failure` means; what it prints is kept."""

    def __init__(self, bundle: Path, url: str, folder: Path) -> None:
        super().__init__(daemon=True)
        self.unit, self.codes = settings(), list[int]()
        assert self.unit["Restart"] == ["on-failure"]
        _, _, _, source, *options = self.unit["ExecStart"]
        assert source == "0", "the first camera"
        self.command = [sys.executable, "-c", IMPATIENT, "detect", str(bundle), url, *options]
        self.output, self.errors = folder / "output", folder / "errors"
        self.process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        good = {0, *(int(code) for code in self.unit["SuccessExitStatus"])}
        final = {int(code) for code in self.unit["RestartPreventExitStatus"]}
        while not self.codes or self.codes[-1] not in good | final:
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            with self.output.open("ab") as output, self.errors.open("ab") as errors:
                self.process = subprocess.Popen(self.command, stdout=output, stderr=errors, env=environment)
                self.codes.append(self.process.wait())

    @property
    def lines(self) -> list[str]:
        return self.output.read_text().splitlines() if self.output.exists() else []

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + SECONDS
        while not condition():
            assert self.is_alive(), f"it ended with {self.codes}: {self.errors.read_text()[-2000:]}"
            assert time.monotonic() < end, self.errors.read_text()[-2000:]
            time.sleep(0.02)

    def more(self, count: int = 5) -> None:
        """Wait for so many more frames."""
        before = len(self.lines)
        self.until(lambda: len(self.lines) >= before + count)


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_the_service_survives_what_cameras_and_supervisors_do(scheme: str, bundle: Bundle, tmp_path: Path) -> None:
    with serving(Camera(scheme, [Turn()])) as camera:
        pass  # its port is free
    supervisor = Supervisor(bundle.path, camera.url, tmp_path)
    supervisor.start()
    try:
        supervisor.until(lambda: supervisor.errors.exists() and "cannot be opened" in supervisor.errors.read_text())
        turns = [Turn(8), Turn(silent=True), Turn(8, End.STALLS), Turn(0, End.STALLS), Turn(end=End.GOES_ON)]
        with serving(Camera(scheme, turns, camera.port)) as camera:
            supervisor.until(lambda: camera.callers >= 5)
            supervisor.more()
            assert supervisor.codes == [], "it was waited for"
            killed = supervisor.process
            assert killed is not None
            killed.kill()
            supervisor.until(lambda: supervisor.process is not killed)
            supervisor.more()
        with serving(Camera(scheme, [Turn(end=End.GOES_ON)], camera.port)):
            supervisor.more()
            assert supervisor.process is not None
            supervisor.process.send_signal(signal.SIGTERM)
            supervisor.join(SECONDS)
    finally:
        if supervisor.process:
            supervisor.process.kill()
    assert supervisor.codes == [-signal.SIGKILL, TERMINATED]
    frames = [json.loads(line)["frame"] for line in supervisor.lines if line.endswith("}")]
    assert len(frames) >= len(supervisor.lines) - 1, "the killed process may have been writing"
    begin = frames.index(0, 1)
    assert frames == [*range(begin), *range(len(frames) - begin)]
    assert "secret" not in supervisor.errors.read_text()


@pytest.mark.parametrize("scheme", ["http", "rtsp"])
def test_a_stream_that_stalls_is_lost_after_a_while(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_source, "WAIT_MILLISECONDS", 300)
    with serving(Camera(scheme, [Turn(6, End.STALLS)])) as camera:
        source = FrameSource(opencv(), Stream(camera.url))
        assert [frame.shape for frame in source.frames()] == [(256, 320, 3)] * 6
        assert source.ended == f"{scheme}://***@127.0.0.1:{camera.port}/live.mjpeg was lost after 6 frames"
        source.close()
