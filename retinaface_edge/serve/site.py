"""The HTTP side: page, faces as server-sent events, pictures, health and metrics, on aiohttp.

Each stream adapts to its viewer: results that a viewer is too slow for are skipped, and one that reads nothing for
`STALL_SECONDS` is disconnected.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING

from retinaface_edge.runtime.io.frame_source import opencv

from .access import COOKIE, allowed, own_name
from .connections import Connections
from .formats import About, metrics, moment_json
from .pipeline import Moment, Pipeline

if TYPE_CHECKING:
    from aiohttp import web

    Send = Callable[[bytes], Awaitable[None]]
    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

MOST_STREAMS = 32
STALL_SECONDS = 10.0
WAIT_SECONDS = 2.0
"""How long a stream stays silent before it says what it waits for."""
HEALTHY_SECONDS = 10.0
JPEG_QUALITY = 80
MOST_PICTURES = 30.0
"""Per second. Compressing every frame of a fast source would slow the detector by a fifth, and shows no more."""
BOUNDARY = "frame"
TYPES = {"index.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class Endpoint:
    """The address that the server listens on, and the token that it requires, if any."""

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)


class Site:
    """The handlers of one pipeline."""

    def __init__(self, pipeline: Pipeline, about: About, endpoint: Endpoint, connections: Connections) -> None:
        self._pipeline, self._about, self._door, self._connections = pipeline, about, endpoint, connections
        self._streams = 0
        self._encoder = ThreadPoolExecutor(1, "retinaface-edge-jpeg")
        self._encoding: tuple[int, asyncio.Future[bytes]] | None = None
        self._next_picture = 0.0

    def application(self) -> web.Application:
        """The aiohttp application."""
        from aiohttp import web

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            if refusal := self._refusal(request):
                refusal.force_close()  # who may not pass holds no connection
                return refusal
            if self._may_pass(request):
                self._connections.asked(request.protocol)
            try:
                return await handler(request)
            except web.HTTPException as error:  # there is no such page, or no such method
                error.headers.update(HEADERS)
                raise

        app = web.Application(middlewares=[guard], client_max_size=1024)
        app.router.add_get("/", self._file("index.html"))
        for name in ("page.css", "page.js"):
            app.router.add_get(f"/{name}", self._file(name))
        app.router.add_get("/moment", self._moment)
        app.router.add_get("/faces", self._events, allow_head=False)
        app.router.add_get("/faces.json", self._faces)
        app.router.add_get("/still.jpg", self._still)
        app.router.add_get("/video.mjpg", self._video, allow_head=False)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/metrics", self._metrics)
        return app

    def close(self) -> None:
        """End the encoder's thread."""
        self._encoder.shutdown(wait=False, cancel_futures=True)

    def _refusal(self, request: web.Request) -> web.StreamResponse | None:
        """The response to a request that is not permitted; None for a permitted one."""
        from aiohttp import web

        if not own_name(self._door.host, request.headers.get("Host")):
            return web.Response(status=403, text="this server answers to localhost only\n", headers=HEADERS)
        query = request.query.get("token")
        if request.path != "/healthz" and not self._may_pass(request):
            text = "a token is needed: open the address that the server printed, or send Authorization: Bearer TOKEN\n"
            return web.Response(status=401, text=text, headers={**HEADERS, "WWW-Authenticate": "Bearer"})
        if request.path == "/" and query and self._door.token:
            # Out of the address, so that it is not in the history and in no picture of the screen.
            found = web.Response(status=303, headers={**HEADERS, "Location": "/"})
            found.set_cookie(COOKIE, self._door.token, httponly=True, samesite="Strict", path="/")
            return found
        return None

    def _may_pass(self, request: web.Request) -> bool:
        header, query, cookie = (
            request.headers.get("Authorization"),
            request.query.get("token"),
            request.cookies.get(COOKIE),
        )
        return allowed(self._door.token, header, query, cookie)

    def _file(self, name: str) -> Handler:
        from aiohttp import web

        content = files(__package__).joinpath("page", name).read_bytes()

        async def handler(request: web.Request) -> web.StreamResponse:
            return web.Response(body=content, content_type=TYPES[name], charset="utf-8", headers=HEADERS)

        return handler

    async def _moment(self, request: web.Request) -> web.StreamResponse:
        """What the page asks for, again and again: one line of JSON, and the picture that it is about."""
        from aiohttp import web

        moment = await self._newer_picture(_after(request))
        state = {"source": asdict(self._pipeline.source.state)}
        if moment is None:
            body = json.dumps(state).encode() + b"\n"
        else:
            line = json.dumps({**json.loads(moment_json(moment)), **state}, separators=(",", ":"))
            body = line.encode() + b"\n" + await self._jpeg(moment)
        return web.Response(body=body, content_type="application/octet-stream", headers=HEADERS)

    async def _faces(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        moment = self._pipeline.latest
        if moment is None:
            return web.json_response({"error": "no frame has come yet"}, status=503, headers=HEADERS)
        return web.Response(text=moment_json(moment) + "\n", content_type="application/json", headers=HEADERS)

    async def _still(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        moment = self._pipeline.latest or await self._newer(0)
        if moment is None:
            return web.Response(status=503, text="no frame has come yet\n", headers=HEADERS)
        headers = {**HEADERS, "X-Frame": str(moment.number)}
        return web.Response(body=await self._jpeg(moment), content_type="image/jpeg", headers=headers)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        async def body(send: Send) -> None:
            await send(b"retry: 1000\n\n")
            number = 0
            while not self._pipeline.stopped:
                moment = await self._newer(number)
                if moment is None:
                    state = json.dumps(asdict(self._pipeline.source.state))
                    await send(f"event: source\ndata: {state}\n\n".encode())
                    continue
                number = moment.number
                await send(f"id: {number}\ndata: {moment_json(moment)}\n\n".encode())

        return await self._stream(request, "text/event-stream", body)

    async def _video(self, request: web.Request) -> web.StreamResponse:
        async def body(send: Send) -> None:
            number = 0
            while not self._pipeline.stopped:
                moment = await self._newer_picture(number)
                if moment is None:
                    continue
                number, picture = moment.number, await self._jpeg(moment)
                head = f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                await send(head.encode() + picture + b"\r\n")

        return await self._stream(request, f"multipart/x-mixed-replace; boundary={BOUNDARY}", body)

    async def _health(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        seen = self._pipeline.latest is not None and self._pipeline.age < HEALTHY_SECONDS
        if seen and not self._pipeline.stopped:
            return web.Response(text="ok\n", headers=HEADERS)
        return web.Response(status=503, text="no frames\n", headers=HEADERS)

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        from aiohttp import web

        text = metrics(self._pipeline, self._about, self._streams)
        headers = {**HEADERS, "Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=text.encode(), headers=headers)

    async def _newer(self, number: int) -> Moment | None:
        """A moment after `number`, or None when none comes for a while."""
        try:
            return await asyncio.wait_for(self._pipeline.after(number), WAIT_SECONDS)
        except asyncio.TimeoutError:
            return None

    async def _newer_picture(self, number: int) -> Moment | None:
        """The same, for viewers of pictures, who get no more of them than `MOST_PICTURES` per second."""
        if (wait := self._next_picture - time.monotonic()) > 0.0:
            await asyncio.sleep(wait)
        return await self._newer(number)

    async def _jpeg(self, moment: Moment) -> bytes:
        """The frame as JPEG, compressed once for all viewers and beside the event loop."""
        if self._encoding is None or self._encoding[0] != moment.number:
            loop = asyncio.get_running_loop()
            self._next_picture = time.monotonic() + 1.0 / MOST_PICTURES
            self._encoding = (moment.number, loop.run_in_executor(self._encoder, _compressed, moment))
        return await asyncio.shield(self._encoding[1])

    async def _stream(
        self, request: web.Request, kind: str, body: Callable[[Send], Awaitable[None]]
    ) -> web.StreamResponse:
        """Run `body` with a way to send to a viewer, who may go or stall at any time."""
        from aiohttp import web

        if self._streams >= MOST_STREAMS:
            text = f"{MOST_STREAMS} streams are open, which is the most\n"
            return web.Response(status=503, text=text, headers=HEADERS)
        response = web.StreamResponse(headers={**HEADERS, "Content-Type": kind, "X-Accel-Buffering": "no"})

        async def send(content: bytes) -> None:
            await asyncio.wait_for(response.write(content), STALL_SECONDS)

        self._streams += 1
        try:
            await response.prepare(request)
            await body(send)
        except (asyncio.TimeoutError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._streams -= 1
        return response


def _after(request: web.Request) -> int:
    text = request.query.get("after", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _compressed(moment: Moment) -> bytes:
    cv = opencv()
    encoded, content = cv.imencode(".jpg", moment.frame, [cv.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    assert encoded, "JPEG takes every frame"
    return bytes(content.tobytes())
