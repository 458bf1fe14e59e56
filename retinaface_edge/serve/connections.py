"""Limits on connections: how many may be open, and how long one without a permitted request may stay.

aiohttp limits neither: a client that opens idle connections could use up all file descriptors, even the camera's.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aiohttp import web

MOST_CONNECTIONS = 128
AT_ONCE = 32
"""So many more may be accepted before the first of them counts."""
SECONDS_TO_ASK = 10.0
KEPT_SECONDS = 15.0
"""How long a connection stays open between two requests."""


class Connections:
    """The open connections of a server; `accept` makes aiohttp's protocol for each new one."""

    def __init__(self) -> None:
        self._server: web.Server | None = None
        self._silent: dict[web.RequestHandler, asyncio.TimerHandle] = {}

    def of(self, server: web.Server) -> None:
        """Take on the connections of `server`."""
        self._server = server

    def accept(self) -> asyncio.Protocol:
        """A protocol for a new connection. At the limit, the oldest one without a request is closed, or else the new
        one is closed."""
        assert self._server is not None
        if len(self._server.connections) >= MOST_CONNECTIONS and not self._make_room():
            return _Closed()
        handler = self._server()
        later = asyncio.get_running_loop().call_later(SECONDS_TO_ASK, self._give_up, handler)
        self._silent[handler] = later
        return handler

    def asked(self, handler: web.RequestHandler) -> None:
        """Its request may be answered, so it stays."""
        if later := self._silent.pop(handler, None):
            later.cancel()

    def _make_room(self) -> bool:
        for handler in list(self._silent):
            alive = handler.transport is not None
            self._give_up(handler)
            if alive:
                return True
        return False

    def _give_up(self, handler: web.RequestHandler) -> None:
        self.asked(handler)
        transport = handler.transport
        handler.force_close()
        if transport is not None:
            transport.abort()  # also what it does not read


class _Closed(asyncio.Protocol):
    """Closes its connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def quiet_log() -> logging.Logger:
    """The logger for aiohttp: our own errors take one line each, malformed requests are not logged."""
    log = logging.getLogger("retinaface_edge.serve")
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_OneLine())
        handler.addFilter(_is_ours)
        log.addHandler(handler)
        log.propagate = False
    return log


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        from retinaface_edge.runtime.text import printable

        error = record.exc_info[1] if record.exc_info else None
        why = f": {type(error).__name__}: {error}" if error else ""
        return f"retinaface-edge: {printable(record.getMessage() + why)}"


def _is_ours(record: logging.LogRecord) -> bool:
    from aiohttp.http_exceptions import HttpProcessingError

    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))
