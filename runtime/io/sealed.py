"""Cache values bound to their key by an HMAC, so that only values written by this user are read.

A value is kept with an HMAC (RFC 2104, SHA-256) over its key and content. The secret of the HMAC is a file of this user
alone, outside every cache: `secret` in the folder that RETINAFACE_EDGE_STATE names, or in `retinaface-edge` in the
user's state folder (XDG base directory specification). It is made when it is first needed.
"""

from __future__ import annotations

import errno
import os
import stat
from functools import lru_cache
from pathlib import Path

from .untrusted import open_file

STATE_VARIABLE = "RETINAFACE_EDGE_STATE"
SECRET_BYTES, TAG_BYTES = 32, 32
PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600


def state_folder() -> Path:
    """The folder of this machine's state. Raises `OSError` if the user has no home."""
    if named := os.environ.get(STATE_VARIABLE):
        return Path(named)
    try:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    except RuntimeError as error:
        raise OSError(errno.ENOENT, f"this user has no home; name a folder in {STATE_VARIABLE}") from error
    return base / "retinaface-edge"


def private_folder(folder: Path) -> Path:
    """The folder, created if missing. Raises `OSError` unless it is this user's and no one else may write to it."""
    folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)
    found = os.stat(folder)
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(errno.EPERM, "it is not this user's alone to write; run: chmod go-w", str(folder))
    return folder


def seal(key: str, content: bytes) -> bytes:
    """The content with the tag that binds it to its key. Raises `OSError` when no secret can be stored."""
    return _tag(key, content) + content


def unseal(key: str, sealed: bytes) -> bytes | None:
    """What `seal` was given under the same key; None for anything else. Raises `OSError` as `seal` does."""
    import hmac  # late: loading OpenSSL is a fifth of what importing this package takes

    content = sealed[TAG_BYTES:]
    return content if hmac.compare_digest(sealed[:TAG_BYTES], _tag(key, content)) else None


def _tag(key: str, content: bytes) -> bytes:
    import hmac

    name = key.encode()
    tag = hmac.new(_secret(state_folder()), len(name).to_bytes(8, "little") + name, "sha256")
    tag.update(content)
    return tag.digest()


@lru_cache(4)
def _secret(folder: Path) -> bytes:
    path = private_folder(folder) / "secret"
    if not os.path.lexists(path):
        _make_secret(path)
    with open_file(path, SECRET_BYTES, links=False) as file:
        found, content = os.fstat(file.fileno()), file.read()
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise PermissionError(errno.EPERM, "others may read or write it; remove it", str(path))
    if len(content) != SECRET_BYTES:
        raise OSError(errno.EINVAL, f"it has {len(content)} bytes and not {SECRET_BYTES}; remove it", str(path))
    return content


def _make_secret(path: Path) -> None:
    """Atomically, and only once even if several processes create it at the same time."""
    scratch = path.with_name(f".secret.{os.urandom(8).hex()}")
    handle = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(os.urandom(SECRET_BYTES))
        os.link(scratch, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(scratch)
