"""Cache of compiled OpenVINO models, each read only if it carries an HMAC made with this user's secret.

OpenVINO's own cache hands whatever lies in its folder to the plugin: another model, or a changed one.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

from ..io.atomic import write_atomic
from ..io.sealed import PRIVATE_FILE, private_folder, seal, unseal
from ..io.untrusted import read_file

CACHE = "RETINAFACE_EDGE_CACHE"
BLOB_BYTES = 1 << 30


def compiled(
    core: Any, parts: Sequence[bytes | str], options: Mapping[str, str], compile_model: Callable[[], Any]
) -> Any:
    """What `compile_model` gives, kept in the folder that `RETINAFACE_EDGE_CACHE` names, if it names one.

    `parts` are the model and all else that decides the result. A cache that cannot be used is reported once, as a
    warning.
    """
    if not (name := os.environ.get(CACHE)):
        return compile_model()
    key = _key([*parts, *(f"{option}={value}" for option, value in sorted(options.items()))])
    path = Path(name) / f"{key}.blob"
    try:
        private_folder(Path(name))
        blob = _stored(path, key)
    except OSError as error:
        _warn_once(f"compiled models are not kept in {name} ({error.strerror}: {error.filename})")
        return compile_model()
    if blob is not None:
        try:
            return core.import_model(BytesIO(blob), "CPU", dict(options))
        except RuntimeError:  # of another build of OpenVINO with the same version: compiled again
            pass
    model = compile_model()
    exported = model.export_model()
    content = seal(key, exported.getvalue() if isinstance(exported, BytesIO) else bytes(exported))
    try:
        path.unlink(missing_ok=True)  # whatever was there is not what we kept
        write_atomic(path, content, PRIVATE_FILE)
    except OSError as error:  # a full disk: the next start is slower, that is all
        _warn_once(f"compiled models are not kept in {name} ({error.strerror})")
    return model


def _stored(path: Path, key: str) -> bytes | None:
    seal(key, b"")  # without a secret nothing can be kept either
    try:
        content = read_file(path, BLOB_BYTES, links=False)
    except OSError:
        return None
    return unseal(key, content)


def _key(parts: Sequence[bytes | str]) -> str:
    import hashlib

    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


@lru_cache(16)
def _warn_once(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)
