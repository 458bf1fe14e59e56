"""Run a pipeline and its site until a signal or a failure ends them."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from dataclasses import replace

from retinaface_edge.runtime.detector import Detector
from retinaface_edge.runtime.io.frame_source import Stream

from .access import token_for
from .connections import AT_ONCE, KEPT_SECONDS, Connections, quiet_log
from .formats import About
from .pipeline import Pipeline, Settings
from .site import Endpoint, Site
from .source import EndlessSource

GRACE_SECONDS = 2.0
"""How long open requests may take to end."""


def serve(
    detector: Detector, source: Stream, settings: Settings, endpoint: Endpoint, about: About, say: Callable[[str], None]
) -> None:
    """Serve the faces of `source` at `endpoint` until SIGINT or SIGTERM; `say` is called with the address.

    Port 0 takes a free one. Raises what ended the source or the detector, `AccessError` for a bad token, and `OSError`
    when the address cannot be taken.
    """
    endpoint = replace(endpoint, token=token_for(endpoint.host, endpoint.token))
    asyncio.run(_serve(detector, source, settings, endpoint, about, say))


async def _serve(
    detector: Detector, source: Stream, settings: Settings, endpoint: Endpoint, about: About, say: Callable[[str], None]
) -> None:
    from aiohttp import web

    stop = threading.Event()
    pipeline = Pipeline(detector, EndlessSource(source, stop), settings, stop)
    connections = Connections()
    site = Site(pipeline, about, endpoint, connections)
    runner = web.AppRunner(
        site.application(),
        access_log=None,
        shutdown_timeout=GRACE_SECONDS,
        keepalive_timeout=KEPT_SECONDS,
        logger=quiet_log(),
    )
    await runner.setup()
    assert runner.server is not None
    connections.of(runner.server)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    listening: asyncio.Server | None = None
    try:
        listening = await loop.create_server(connections.accept, endpoint.host, endpoint.port, backlog=AT_ONCE)
        pipeline.start()
        say(_address(endpoint, listening.sockets[0].getsockname()[1]))
        await _first(ended.wait(), _failed(pipeline))
    finally:
        if listening is not None:
            listening.close()
        await pipeline.stop()
        await runner.cleanup()
        site.close()
    if pipeline.failure is not None:
        raise pipeline.failure


async def _failed(pipeline: Pipeline) -> None:
    number = 0
    while (moment := await pipeline.after(number)) is not None:
        number = moment.number


async def _first(*waits: object) -> None:
    tasks = [asyncio.ensure_future(wait) for wait in waits]  # type: ignore[call-overload]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _address(endpoint: Endpoint, port: int) -> str:
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"http://{host}:{port}/" + (f"?token={endpoint.token}" if endpoint.token else "")
