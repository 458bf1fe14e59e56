"""The server as people and programs meet it: a page in a real browser, streams, tokens, and viewers that misbehave."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.cli.main import main
from retinaface_edge.runtime import Bundle, Detector

from .browser import opened

cv2 = pytest.importorskip("cv2", reason="the extra `video` is not installed")
pytest.importorskip("aiohttp", reason="the extra `serve` is not installed")
LIVE = "Number(document.body.dataset.frame) > 2 && document.getElementById('state').className === 'live'"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The portrait and a smaller one, at 10 frames a second."""
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (640, 480))
    frame = np.full((480, 640, 3), 60, np.uint8)
    frame[:, 64:576] = portrait()[:480]
    frame[340:450, 8:118] = cv2.resize(portrait()[20:220, 120:320], (110, 110))
    for _ in range(5):
        writer.write(frame)
    writer.release()
    return path


@dataclass(frozen=True)
class Server:
    address: str
    process: subprocess.Popen[str]

    def get(self, path: str, **headers: str) -> tuple[int, bytes]:
        request = urllib.request.Request(f"{self.address.split('?')[0]}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, response.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    @property
    def metrics(self) -> dict[str, float]:
        lines = self.get("metrics")[1].decode().splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    @property
    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def connect(self) -> socket.socket:
        host, port = re.findall(r"//([\d.]+):(\d+)", self.address)[0]
        return socket.create_connection((host, int(port)), timeout=30)

    def ask(self, path: str) -> socket.socket:
        """A connection that has asked for something and read nothing."""
        connection = self.connect()
        connection.sendall(f"GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return connection

    def say(self, content: bytes) -> bytes:
        """Send, and read until the connection is closed."""
        answer = b""
        with closing(self.connect()) as connection, suppress(ConnectionError):
            connection.sendall(content)
            while data := connection.recv(1 << 16):
                answer += data
        return answer

    def until(self, name: str, least: float = -np.inf, most: float = np.inf) -> float:
        for _ in range(600):
            if least <= (value := self.metrics[f"retinaface_edge_{name}"]) <= most:
                return value
            time.sleep(0.1)
        raise AssertionError(f"{name} is {value}")


@contextmanager
def served(bundle: Bundle, source: Path | str, *options: str, descriptors: int = 1024) -> Iterator[Server]:
    command = [sys.executable, "-m", "retinaface_edge", "serve", str(bundle.path), str(source), "--port", "0", *options]
    limit = functools.partial(resource.setrlimit, resource.RLIMIT_NOFILE, (descriptors, descriptors))
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=limit)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("serving http"), line + process.communicate()[1]
        yield Server(line.split()[1], process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def server(bundle: Bundle, clip: Path) -> Iterator[Server]:
    with served(bundle, clip) as running:
        running.until("frames_total", least=1)
        yield running


@pytest.fixture(scope="module")
def server_with_token(bundle: Bundle, clip: Path) -> Iterator[Server]:
    with served(bundle, clip, "--token", "a-token-of-some-length") as running:
        yield running


@pytest.mark.parametrize(("size", "dark"), [((1280, 800), False), ((390, 844), True)], ids=["wide", "phone"])
def test_the_page_shows_the_picture_with_its_faces(
    server: Server, size: tuple[int, int], dark: bool, tmp_path: Path
) -> None:
    async def look() -> None:
        async with opened(server.address, tmp_path / "profile", size, dark) as page:
            await page.until(LIVE)
            assert await page.value("document.getElementById('count').textContent") == "2"
            assert float(await page.value("document.getElementById('rate').textContent")) > 0
            assert await page.value("document.querySelectorAll('#faces li').length") == 2
            shares = await page.value("['pre','inference','post'].map(i => document.getElementById(i).textContent)")
            assert sum(float(share.rstrip(" %")) for share in shares) == pytest.approx(100, abs=0.2)
            assert await page.value("document.documentElement.scrollWidth") <= size[0], "nothing sticks out"
            back = await page.value("getComputedStyle(document.body).backgroundColor")
            assert (max(map(int, re.findall(r"\d+", back))) < 64) is dark
            # The upper edge of the larger face's box is drawn where the server says that the face is.
            face = json.loads(server.get("faces.json")[1])["faces"][0]
            # The line is 2 pixels wide, so the row that holds its middle is covered whatever the fraction.
            x, y = int((face["box"][0] + face["box"][2]) / 2), int(face["box"][1])
            pixel = f"[...document.getElementById('picture').getContext('2d').getImageData({x}, {y}, 1, 1).data]"
            # The page may be between two moments, so it has time to get there.
            drawn = f"(([red, green]) => green > 200 && red < 80)({pixel})"
            await page.until(drawn)
            await page.value("document.getElementById('boxes').click()")
            await page.until(f"!{drawn}")
            assert page.console == []

    asyncio.run(look())


def test_the_page_says_when_the_server_is_gone(bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    async def look() -> None:
        with served(bundle, clip) as running:
            async with opened(running.address, tmp_path / "profile") as page:
                await page.until(LIVE)
                running.process.kill()
                await page.until("document.getElementById('state').textContent.includes('not reachable')")

    asyncio.run(look())


def test_programs_get_the_faces_that_the_detector_finds(server: Server, bundle: Bundle, clip: Path) -> None:
    capture, detector = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG), Detector.load(bundle)
    frames = [capture.read()[1] for _ in range(5)]  # which differ a little: the video is compressed
    content = json.loads(server.get("faces.json")[1])
    assert (content["width"], content["height"]) == (640, 480)
    found = [np.array([face[key] for face in content["faces"]]) for key in ("box", "landmarks")]
    expected = [(faces.boxes, faces.landmarks) for faces in map(detector.detect, frames)]
    assert any(np.allclose(found[0], boxes, atol=0.01) and np.allclose(found[1], points, atol=0.01)
               for boxes, points in expected)  # fmt: skip
    still = cv2.imdecode(np.frombuffer(server.get("still.jpg")[1], np.uint8), cv2.IMREAD_COLOR)
    assert np.abs(still.astype(int) - frames[0]).mean() < 4


def test_events_come_frame_after_frame(server: Server) -> None:
    with closing(server.ask("faces")) as connection:
        stream = connection.makefile("rb")
        numbers = []
        for line in stream:
            if line.startswith(b"data: "):
                numbers.append(json.loads(line[6:])["frame"])
            if len(numbers) == 4:
                break
    assert numbers == sorted(set(numbers))


def test_metrics_are_in_the_form_of_prometheus_and_health_is_good(server: Server) -> None:
    assert server.get("healthz") == (200, b"ok\n")
    for line in server.get("metrics")[1].decode().splitlines():
        assert re.fullmatch(
            r'# (HELP|TYPE) retinaface_edge_\w+ .+|retinaface_edge_\w+(\{(\w+="[^"]*",?)+\})? [\d.e+-]+', line
        ), line
    assert server.metrics["retinaface_edge_source_up"] == 1
    before = server.metrics["retinaface_edge_frames_total"]
    server.until("frames_total", least=before + 3)


def test_a_viewer_that_reads_nothing_holds_nobody_up_and_is_disconnected(bundle: Bundle, clip: Path) -> None:
    with served(bundle, clip) as running:
        running.until("frames_total", least=1)
        stalled = [running.ask("video.mjpg") for _ in range(2)]
        for connection in stalled:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        running.until("viewers", least=2)
        before = running.metrics["retinaface_edge_frames_total"]
        running.until("frames_total", least=before + 10)
        assert running.get("still.jpg")[0] == 200
        running.until("viewers", most=0)
        for connection in stalled:
            connection.close()


def test_viewers_of_pictures_get_no_more_than_so_many_per_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one picture in ten thousand seconds, the second one waits although newer moments are there."""
    from retinaface_edge.runtime import Faces
    from retinaface_edge.serve import site as module
    from retinaface_edge.serve.pipeline import Moment, Speed

    monkeypatch.setattr(module, "MOST_PICTURES", 1e-4)
    none = Faces(np.zeros(0), np.zeros((0, 4)), np.zeros((0, 5, 2)))

    class Pipeline:
        number = 0

        async def after(self, number: int) -> Moment:
            self.number += 1
            return Moment(self.number, 0.0, np.zeros((48, 64, 3), np.uint8), none, Speed())

    async def watch() -> None:
        site = module.Site(Pipeline(), None, module.Endpoint(), None)  # type: ignore[arg-type]
        first = await site._newer_picture(0)
        assert first is not None
        assert (await site._jpeg(first))[:2] == b"\xff\xd8"
        assert await site._newer(1) is not None, "who wants no pictures does not wait"
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(site._newer_picture(1), 0.1)
        site.close()

    asyncio.run(watch())


def test_two_hundred_viewers_come_and_go_and_leave_no_descriptor(server: Server) -> None:
    for path in ("faces", "video.mjpg", "", "moment"):
        server.ask(path).close()
    server.until("viewers", most=0)
    before = server.descriptors
    for number in range(200):
        connection = server.ask(("faces", "video.mjpg", "moment", "still.jpg")[number % 4])
        if number % 3 == 0:
            connection.recv(10)
        connection.close()
    server.until("viewers", most=0)
    for _ in range(100):
        if server.descriptors <= before + 1:
            break
        time.sleep(0.1)
    assert server.descriptors <= before + 1
    assert server.get("healthz")[0] == 200


def test_no_more_streams_than_the_limit(server: Server) -> None:
    connections = [server.ask("faces") for _ in range(32)]
    server.until("viewers", least=32)
    assert server.get("faces")[0] == 503
    for connection in connections:
        connection.close()
    server.until("viewers", most=0)


def test_beyond_this_machine_a_token_is_needed(bundle: Bundle, clip: Path) -> None:
    with served(bundle, clip, "--host", "0.0.0.0") as running:
        address, _, token = running.address.partition("?token=")
        assert len(token) >= 16
        for path in ("", "faces.json", "still.jpg", "metrics", "video.mjpg", "page.js", "moment"):
            assert running.get(path)[0] == 401, path
            assert running.get(path, Authorization="Bearer wrong-token-of-some-length")[0] == 401
        assert running.get("healthz")[0] in (200, 503)
        assert running.get("metrics", Authorization=f"Bearer {token}")[0] == 200
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(f"{address}?token={token}") as page:
            assert page.url == address, "the token leaves the address"
        with opener.open(f"{address}metrics") as content:
            assert content.status == 200


def test_a_web_page_elsewhere_cannot_ask_through_a_name_of_its_own(server: Server) -> None:
    assert server.get("faces.json", Host="attacker.example")[0] == 403
    assert server.get("faces.json", Host="localhost:1")[0] == 200
    assert server.get("faces.json", Host="[::1]:1")[0] == 200


@pytest.mark.parametrize(
    "host", ["localhost:80@attacker.example", "[::1]attacker", "localhost.attacker", "", "0.0.0.0"]
)
def test_only_a_whole_name_of_this_machine_is_one(server: Server, host: str) -> None:
    assert server.get("faces.json", Host=host)[0] == 403


@pytest.mark.parametrize(
    "header",
    [b"Authorization: Bearer \xff\xfe", b"Cookie: retinaface_edge_token=\xff", b"Authorization: Bearer \xc3\xbc"],
)
def test_a_token_of_any_bytes_is_a_wrong_token(server_with_token: Server, header: bytes) -> None:
    answer = server_with_token.say(b"GET /faces.json HTTP/1.1\r\nHost: localhost\r\n" + header + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401")


def test_connections_that_ask_for_nothing_take_nothing_from_others(bundle: Bundle, clip: Path) -> None:
    """More than there are descriptors: half of a request each, or a wrong token that is kept open."""
    with served(bundle, clip, "--host", "0.0.0.0", descriptors=256) as running:
        token = running.address.partition("?token=")[2]
        held = []
        for index in range(400):
            held.append(running.connect())
            with suppress(OSError):  # it was closed at once
                held[-1].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n" + (b"\r\n" if index % 2 else b""))
        for _ in range(3):
            assert running.get("metrics", Authorization=f"Bearer {token}")[0] == 200
        assert running.descriptors < 200
        running.process.terminate()
        assert running.process.wait(60) == 0
        assert running.process.stderr is not None and running.process.stderr.read() == ""


def test_a_connection_that_asks_for_nothing_is_closed(server_with_token: Server) -> None:
    connections = [server_with_token.connect() for _ in range(3)]
    for connection, begun in zip(connections, (b"", b"GET / HT", b"\r\n\r\n"), strict=True):
        connection.sendall(begun)
    for connection in connections:
        with suppress(ConnectionError):
            assert connection.recv(1) == b""
        connection.close()


def test_what_is_no_http_is_refused_without_a_word_in_the_journal(bundle: Bundle, clip: Path) -> None:
    with served(bundle, clip) as running:
        for sent in (b"\x16\x03\x01\x02", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000, b"\xff" * 5000):
            assert b" 400 " in running.say(sent + b"\r\n\r\n")[:20]
        for path in (b"/../../etc/passwd", b"/%2e%2e/etc/passwd", b"//etc/passwd", b"/page/..%2fsite.py", b"/%00"):
            answer = running.say(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 404")
            assert b"nosniff" in answer
        running.process.terminate()
        assert running.process.wait(60) == 0
        assert running.process.stderr is not None and running.process.stderr.read() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_even_while_someone_watches(bundle: Bundle, clip: Path, number: signal.Signals) -> None:
    with served(bundle, clip) as running:
        for path in ("faces", "video.mjpg", "moment", "still.jpg") * 3:
            running.ask(path).close()  # gone before the answer: nothing is said of it on standard error
        viewer = running.ask("video.mjpg")
        running.until("viewers", least=1)
        running.process.send_signal(number)
        assert running.process.wait(60) == 0
        assert running.process.stderr is not None and running.process.stderr.read() == ""
        viewer.close()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["none.mp4"], "does not exist"),
        ([__file__], "cannot be opened|gives no frame"),
        (["0", "--token", "short"], "16 or more"),
        (["0", "--token", ""], "16 or more"),
    ],
)
def test_what_cannot_be_served_is_said(
    bundle: Bundle, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", str(bundle.path), "--port", "0", *arguments]) == 2
    assert re.search(words, capsys.readouterr().err)
