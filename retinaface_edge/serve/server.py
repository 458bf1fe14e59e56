"""Run a pipeline and its site until a signal or a failure ends them."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from dataclasses import replace

from retinaface_edge.runtime.detector import Detector

from .access import token_for
from .formats import About
from .pipeline import Pipeline, Settings
from .site import Door, Site
from .source import EndlessSource

GRACE_SECONDS = 2.0
"""How long open requests may take to end."""


def serve(
    detector: Detector, source: str, settings: Settings, door: Door, about: About, say: Callable[[str], None]
) -> None:
    """Serve the faces of `source` at `door` until SIGINT or SIGTERM; `say` is told the address.

    Port 0 takes a free one. Raises what ended the source or the detector, `AccessError` for a bad token, and `OSError`
    when the address cannot be taken.
    """
    door = replace(door, token=token_for(door.host, door.token))
    asyncio.run(_serve(detector, source, settings, door, about, say))


async def _serve(
    detector: Detector, source: str, settings: Settings, door: Door, about: About, say: Callable[[str], None]
) -> None:
    from aiohttp import web

    stop = threading.Event()
    pipeline = Pipeline(detector, EndlessSource(source, stop), settings, stop)
    site = Site(pipeline, about, door)
    runner = web.AppRunner(site.application(), access_log=None, shutdown_timeout=GRACE_SECONDS)
    await runner.setup()
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    try:
        listening = web.TCPSite(runner, door.host, door.port)
        await listening.start()
        pipeline.start()
        say(_address(door, runner.addresses[0][1]))
        await _first(ended.wait(), _failed(pipeline))
    finally:
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


def _address(door: Door, port: int) -> str:
    host = f"[{door.host}]" if ":" in door.host else door.host
    return f"http://{host}:{port}/" + (f"?token={door.token}" if door.token else "")
