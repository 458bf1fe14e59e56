"""The bars of `serve`: what it adds to detect's frame time, with and without viewers, and what visitors leave behind.

    python tests/acceptance/bars/serve.py BUNDLE [--rounds 20] [--visits 1000]

A clip of 640x480 is played faster than it can be worked on, so that a frame's time is the detector's. Four things are
timed in turn, many times: `detect` alone in this process, and the server without a viewer, with one that reads the
video and the faces, and with one that asks for the video and never reads. The server stands still (SIGSTOP) while
`detect` is timed. Other programs only ever make a time longer, so the figure is that of the shorter half: the ratio of
lower quartiles. A machine with one free core beside the detector's is needed: the load is printed.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.runtime import Detector
from retinaface_edge.runtime.io.frame_source import FrameSource, Stream, opencv

MOST_ADDED = 0.10
MOST_LEFT = 0.01
"""Of resident memory, after all visits but the first fifth."""
SECONDS = 1.0
RATE = 500.0
VIEWER = """
import socket, sys, threading
def read(path):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n".encode())
        while connection.recv(1 << 16):
            pass
threading.Thread(target=read, args=("/faces",), daemon=True).start()
read("/video.mjpg")
"""


class Server:
    """A running `serve` of this machine alone."""

    def __init__(self, bundle: Path, clip: Path) -> None:
        command = [sys.executable, "-m", "retinaface_edge", "serve", str(bundle), str(clip), "--port", "0"]
        command += ["--backend", "openvino", "--precision", "int8"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(re.findall(r":(\d+)", self.process.stdout.readline())[0])

    def frames(self) -> float:
        """How many frames it has worked on."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as response:
            return float(re.findall(r"^retinaface_edge_frames_total (\S+)", response.read().decode(), re.MULTILINE)[0])

    def milliseconds(self) -> float:
        """Of one frame, over some seconds."""
        begin, first = time.perf_counter(), self.frames()
        time.sleep(SECONDS)
        last, end = self.frames(), time.perf_counter()
        return (end - begin) / (last - first) * 1e3

    def ask(self, path: str) -> socket.socket:
        """A connection that has asked for something and read nothing."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        connection.sendall(f"GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return connection

    @property
    def left(self) -> tuple[int, int]:
        """Its open descriptors, and its resident memory in KiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return len(os.listdir(f"/proc/{self.process.pid}/fd")), int(re.findall(r"VmRSS:\s+(\d+)", status)[0])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print every bar; 0 when all are met, 1 when one is not."""
    parser = argparse.ArgumentParser(description="Measure the bars of serve.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--visits", type=int, default=1000)
    options = parser.parse_args(arguments)
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.avi"
        write_clip(clip)
        server = Server(options.bundle, clip)
        try:
            server.milliseconds()
            good = cost(server, options.bundle, clip, options.rounds)
            return 0 if all((good, visits(server, options.visits))) else 1
        finally:
            server.process.kill()
            server.process.wait()


def cost(server: Server, bundle: Path, clip: Path, rounds: int) -> bool:
    """Print what serving adds to a frame, with each kind of viewer."""
    times: dict[str, list[float]] = {}
    with Detector.load(bundle, "openvino", "int8") as detector, endless(clip) as frames:
        found = detector.detect_many(frames)
        for _ in range(rounds):
            with stopped(server):
                times.setdefault("detect", []).append(timed(lambda: next(found)))
            times.setdefault("serve, no viewer", []).append(server.milliseconds())
            viewer = subprocess.Popen([sys.executable, "-c", VIEWER, str(server.port)])
            time.sleep(0.5)
            times.setdefault("serve, one viewer", []).append(server.milliseconds())
            viewer.kill()
            viewer.wait()
            with closing(server.ask("video.mjpg")):
                time.sleep(1.0)  # until its buffers are full
                times.setdefault("serve, a stalled viewer", []).append(server.milliseconds())
    good = True
    base = lower_quartile(times["detect"])
    for name, values in times.items():
        added = lower_quartile(values) / base - 1.0
        print(
            f"{name:24} {lower_quartile(values):6.2f} ms per frame, {added:+.1%} "
            f"(median {statistics.median(values):.2f} ms, shortest {min(values):.2f} ms)"
        )
        good = good and added <= MOST_ADDED
    print(f"bar: {MOST_ADDED:+.0%}: {'met' if good else 'NOT MET'}")
    return good


def lower_quartile(values: Sequence[float]) -> float:
    """The value that a quarter of them stays below."""
    return sorted(values)[len(values) // 4]


def visits(server: Server, count: int) -> bool:
    """Connect and disconnect many times, and print what that leaves in the server."""
    paths = ("faces", "video.mjpg", "still.jpg", "")
    for number in range(count):
        if number == count // 5:
            time.sleep(3.0)
            before = server.left
        with closing(server.ask(paths[number % len(paths)])) as connection:
            connection.recv(1 << 10)
    time.sleep(3.0)
    after = server.left
    descriptors, memory = after[0] - before[0], after[1] / before[1] - 1.0
    good = descriptors <= 0 and memory <= MOST_LEFT
    print(
        f"{count - count // 5} visits after the first {count // 5}: {descriptors:+d} descriptors (bar 0), resident "
        f"memory {before[1] / 1024:.1f} to {after[1] / 1024:.1f} MiB, {memory:+.2%} (bar {MOST_LEFT:+.0%}): "
        f"{'met' if good else 'NOT MET'}"
    )
    return good


def write_clip(path: Path) -> None:
    """A portrait and a smaller one, 640x480."""
    frame = np.full((480, 640, 3), 60, np.uint8)
    frame[:, 64:576] = portrait()[:480]
    cv2 = opencv()
    frame[340:450, 8:118] = cv2.resize(portrait()[20:220, 120:320], (110, 110))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, (640, 480))
    for shift in range(100):
        writer.write(np.roll(frame, shift, axis=1))
    writer.release()


@contextmanager
def endless(clip: Path) -> Iterator[Iterator[np.ndarray]]:
    """The clip again and again, decoded as `detect` decodes it."""

    def frames() -> Iterator[np.ndarray]:
        while True:
            with closing(FrameSource(opencv(), Stream(str(clip)))) as source:
                yield from source.frames()

    yield frames()


@contextmanager
def stopped(server: Server) -> Iterator[None]:
    """The server stands still meanwhile."""
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def timed(step: Callable[[], object]) -> float:
    """Milliseconds of one step, over some seconds."""
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < SECONDS:
        step()
        count += 1
    return (time.perf_counter() - begin) / count * 1e3


if __name__ == "__main__":
    sys.exit(main())
