"""Cameras on the network that behave badly: MJPEG over HTTP, and RTSP with RFC 2435's JPEG in its own connection."""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from retinaface_edge.calibration.dataset.synthetic_scenes import portrait
from retinaface_edge.runtime.io.frame_source import opencv

cv2 = opencv()
WIDTH, HEIGHT = 320, 256
RATE = 25
CLOCK = 90_000
PACKET = 1200
TABLES, SCAN = b"\xff\xdb", b"\xff\xda"


class End(Enum):
    """What a camera does once its frames are sent."""

    HANGS_UP = 0
    STALLS = 1
    GOES_ON = 2
    """Sends frames until it is closed."""


@dataclass(frozen=True)
class Turn:
    """What one caller gets: nothing at all with `silent`, else `frames` frames, and then the end."""

    frames: int = 0
    end: End = End.HANGS_UP
    silent: bool = False


@dataclass
class Camera:
    """Callers take a turn each; the last turn is for all that come after."""

    scheme: str
    turns: list[Turn]
    port: int = 0
    callers: int = 0
    closed: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://user:secret@127.0.0.1:{self.port}/live.mjpeg"

    def next(self) -> Turn:
        self.callers += 1
        return self.turns.pop(0) if len(self.turns) > 1 else self.turns[0]


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True


@contextmanager
def serving(camera: Camera) -> Iterator[Camera]:
    """The camera, on a free port of this machine or on its own."""

    class Caller(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            turn = camera.next()
            try:
                if not turn.silent:
                    (_http if camera.scheme == "http" else _rtsp)(self, camera, turn)
                if turn.silent or turn.end is End.STALLS:
                    camera.closed.wait(60)
            except OSError:
                return  # the caller has gone

    with _Server(("127.0.0.1", camera.port), Caller) as server:
        camera.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield camera
        finally:
            camera.closed.set()
            server.shutdown()
            thread.join()


def _frames(camera: Camera, turn: Turn) -> Iterator[bytes]:
    picture = cv2.resize(portrait(), (WIDTH, HEIGHT))
    count = 0
    while not camera.closed.is_set() and (turn.end is End.GOES_ON or count < turn.frames):
        yield cv2.imencode(".jpg", np.roll(picture, count, axis=1))[1].tobytes()
        count += 1
        camera.closed.wait(0.5 / RATE)


def _http(caller: socketserver.StreamRequestHandler, camera: Camera, turn: Turn) -> None:
    while caller.rfile.readline().strip():
        pass
    caller.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
    for picture in _frames(camera, turn):
        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
        caller.wfile.write(head.encode() + picture + b"\r\n")


def _rtsp(caller: socketserver.StreamRequestHandler, camera: Camera, turn: Turn) -> None:
    """Answer until PLAY, and then send RTP packets between the answers' bytes, as RFC 2326 says in 10.12."""
    described = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=camera\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\na=control:track\r\n"
    while (request := caller.rfile.readline().split()) and request[0] != b"TEARDOWN":
        sequence = b"0"
        while line := caller.rfile.readline().strip():
            if line.lower().startswith(b"cseq:"):
                sequence = line[5:].strip()
        more, body = {
            b"DESCRIBE": ("Content-Type: application/sdp\r\n", described),
            b"SETUP": ("Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n", ""),
            b"PLAY": ("Session: 1\r\n", ""),
        }.get(request[0], ("Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n", ""))
        head = f"RTSP/1.0 200 OK\r\nCSeq: {sequence.decode()}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
        caller.wfile.write((head + body).encode())
        if request[0] == b"PLAY":
            break
    number = 0
    for index, picture in enumerate(_frames(camera, turn)):
        for packet in _packets(picture, index * CLOCK // RATE, number):
            caller.wfile.write(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
            number += 1


def _packets(picture: bytes, time: int, number: int) -> Iterator[bytes]:
    """RTP packets of a baseline JPEG with its own quantisation tables and the usual Huffman tables."""
    tables, place = b"", 2
    while picture[place : place + 2] != SCAN:
        size = int.from_bytes(picture[place + 2 : place + 4], "big")
        if picture[place : place + 2] == TABLES:
            segment = picture[place + 4 : place + 2 + size]
            tables += b"".join(segment[start + 1 : start + 65] for start in range(0, len(segment), 65))
        place += 2 + size
    scan = picture[place + 2 + int.from_bytes(picture[place + 2 : place + 4], "big") : -2]
    for offset in range(0, len(scan), PACKET):
        part = scan[offset : offset + PACKET]
        last = offset + PACKET >= len(scan)
        head = struct.pack(">BBHII", 0x80, 26 | (0x80 if last else 0), (number + offset // PACKET) & 0xFFFF, time, 1)
        head += struct.pack(">I4B", offset, 1, 255, WIDTH // 8, HEIGHT // 8)  # type 1: 4:2:0
        yield head + (struct.pack(">BBH", 0, 0, len(tables)) + tables if offset == 0 else b"") + part
