"""Ed25519 signatures (RFC 8032) of a bundle's manifest, whose digests cover every other file.

The signature is 64 bytes in `manifest.sig` beside the manifest. A key is configured by the caller, or for every load of
a process by the environment variable `RETINAFACE_EDGE_KEY`; then a bundle that it did not sign is not loaded. There may
be several keys, so that a new one can be trusted before the old one is retired. Needs the package `cryptography`,
imported only when there is a key.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BundleError
from ..io.untrusted import KEY_BYTES, read_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

SIGNATURE = "manifest.sig"
KEY_VARIABLE = "RETINAFACE_EDGE_KEY"
BYTES = 64


def configured_keys() -> tuple[Path, ...]:
    """The public keys that the environment names, separated as in PATH. Raises `BundleError` for an empty variable.

    An empty variable is taken for a mistake, not for a request to check nothing.
    """
    name = os.environ.get(KEY_VARIABLE)
    if name is None:
        return ()
    names = [name] if os.path.lexists(name) else name.split(os.pathsep)
    if not all(part.strip() for part in names):
        raise BundleError(f"{KEY_VARIABLE} is set but empty, or names an empty path; give it the public key's path")
    return tuple(map(Path, names))


def signer(key: Path) -> Callable[[bytes], bytes]:
    """A function that signs with the Ed25519 key in the PEM file `key`, without a password. Raises `BundleError`."""
    _need_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(_read(key), password=None)
    except (ValueError, TypeError) as error:
        raise BundleError(f"{key} is not a private key in PEM form without a password; {_MAKE}") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise BundleError(f"{key} is not an Ed25519 private key; {_MAKE}")
    return private.sign


def check_signature(manifest: bytes, signature: Path, *keys: Path) -> Path:
    """The one of the PEM public keys `keys` that verifies the file `signature` of the bytes `manifest`.

    Raises `BundleError` when it is none of them, or one cannot be read.
    """
    _need_cryptography()
    from cryptography.exceptions import InvalidSignature

    public = [_public_key(key) for key in keys]
    if not os.path.lexists(signature):
        raise BundleError(f"{signature.parent} is not signed; build it with --sign, or load it without a key")
    signed = _read(signature, links=False)
    for path, key in zip(keys, public, strict=True):
        try:
            key.verify(signed, manifest)
            return path
        except InvalidSignature:
            continue
    names = " or ".join(map(str, keys))
    raise BundleError(
        f"the signature of {signature.parent} was not made with the key {names}; get the bundle from its maker"
    )


def _public_key(path: Path) -> Ed25519PublicKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        public = load_pem_public_key(_read(path))
    except ValueError as error:
        raise BundleError(f"{path} is not a public key in PEM form; make it by: {_PUBLIC}") from error
    if not isinstance(public, Ed25519PublicKey):
        raise BundleError(f"{path} is not an Ed25519 public key; make it by: {_PUBLIC}")
    return public


def check_form(signature: Path) -> bool:
    """Whether there is a file `signature`. Raises `BundleError` when it cannot be a signature, whatever the key."""
    if not os.path.lexists(signature):
        return False
    if (size := len(_read(signature, links=False))) != BYTES:
        raise BundleError(
            f"{signature} is not a signature: it has {size:,} bytes and not {BYTES}; get the bundle from its maker"
        )
    return True


_MAKE = "make one by: openssl genpkey -algorithm ed25519 -out key.pem"
_PUBLIC = "openssl pkey -in key.pem -pubout -out key.pub"


def _need_cryptography() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise BundleError("signatures need cryptography; run: pip install 'retinaface-edge[sign]'") from error


def _read(path: Path, links: bool = True) -> bytes:
    try:
        return read_file(path, KEY_BYTES, links)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror})") from error
