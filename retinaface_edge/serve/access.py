"""Access control: on this machine anyone may watch, from elsewhere those who have the token."""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets

from retinaface_edge.runtime.errors import RetinaFaceEdgeError

LEAST_TOKEN = 16
COOKIE = "retinaface_edge_token"
HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:@\[\]]+)(?::\d*)?")
"""A name or address, and a port."""


class AccessError(RetinaFaceEdgeError):
    """A token that is too short to protect anything."""


def is_loopback(host: str) -> bool:
    """Whether only programs on this machine reach `host`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def token_for(host: str, given: str | None) -> str | None:
    """The token that requests need: the given one, a new one where the network reaches `host`, or none.

    Raises `AccessError` when the given one is shorter than 16 characters or not plain ASCII.
    """
    if given is None:  # one that is set but empty is too short, as in `TOKEN= retinaface-edge serve`
        return None if is_loopback(host) else secrets.token_urlsafe(24)
    if len(given) < LEAST_TOKEN or not given.isascii() or not given.isprintable() or " " in given:
        raise AccessError(
            f"the token must be {LEAST_TOKEN} or more ASCII characters without spaces; leave it out to get a new one"
        )
    return given


def allowed(token: str | None, header: str | None, query: str | None, cookie: str | None) -> bool:
    """Whether a request has the token: as `Authorization: Bearer`, in the address, or as a cookie."""
    if token is None:
        return True
    bearer = header[len("Bearer ") :] if header and header.startswith("Bearer ") else None
    offered = [value for value in (bearer, query, cookie) if value]
    # Each in constant time, so that the time of an answer tells nothing about the token. Headers may hold any bytes.
    return any(hmac.compare_digest(value.encode(errors="surrogatepass"), token.encode()) for value in offered)


def own_name(bound: str, host_header: str | None) -> bool:
    """Whether a request addresses us by a name of our own.

    Otherwise a server on the loopback address would be open to any web page whose host name resolves to 127.0.0.1 (DNS
    rebinding). On other addresses the token protects it.
    """
    if not is_loopback(bound):
        return True
    match = HOST.fullmatch(host_header or "")
    return match is not None and is_loopback(match[1])
