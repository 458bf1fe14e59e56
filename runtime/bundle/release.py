"""Releases of signed bundles: a version number that protects from rollback, and an expiry date.

The signature of an old bundle remains valid: somebody who can write to a device's folder could restore one with known
faults. As in The Update Framework (TUF, section 5), the signed manifest carries a version and an expiry, and the device
keeps the minimum version that it accepts in its own state, which no bundle can change.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from ..errors import BundleError
from ..io.atomic import write_atomic
from ..io.sealed import PRIVATE_FILE, private_folder, seal, state_folder, unseal
from ..io.untrusted import read_file

RELEASE = "release"
LEAST_VERSION = "min-version"
MOST_VERSION = 1 << 53
"""The largest whole number that every reader of JSON keeps."""
STATE_BYTES = 1 << 10


@dataclass(frozen=True)
class Release:
    """Version of a bundle, and the last day on which it may be loaded. Raises `ValueError` for a version below 1."""

    version: int
    expires: date | None = None

    def __post_init__(self) -> None:
        if isinstance(self.version, bool) or not 1 <= self.version <= MOST_VERSION:
            raise ValueError(f"a version is a whole number from 1 to {MOST_VERSION}, not {self.version}")

    def to_json(self) -> dict[str, Any]:
        """Its entry in the manifest."""
        return {"version": self.version, "expires": self.expires.isoformat() if self.expires else None}


def parse_release(text: str) -> Release:
    """`7`, or `7,2027-12-31` with the last day. Raises `ValueError`."""
    found = re.fullmatch(r"([1-9][0-9]{0,15})(?:,([0-9]{4}-[0-9]{2}-[0-9]{2}))?", text, re.ASCII)
    if found is None:
        raise ValueError(f"{text!r} is not a version with or without its last day, for instance 7,2027-12-31")
    return Release(int(found[1]), date.fromisoformat(found[2]) if found[2] else None)


def release_of(manifest: Mapping[str, Any]) -> Release | None:
    """The release that a manifest states, None where it states none. Raises `ValueError` when it makes no sense."""
    fields = manifest.get(RELEASE)
    if fields is None:
        return None
    if not isinstance(fields, Mapping) or not isinstance(fields.get("version"), int):
        raise ValueError("its release has no version")
    expires = fields.get("expires")
    return Release(fields["version"], None if expires is None else date.fromisoformat(str(expires)))


def check_release(release: Release | None, name: str, today: date | None = None) -> None:
    """Raise `BundleError` when the release has expired or is older than this device accepts. `name` is the bundle's.

    A device whose clock is wrong may accept an expired bundle; the version does not depend on a clock.
    """
    if release is not None and release.expires is not None and (today or date.today()) > release.expires:
        raise BundleError(f"{name} was valid until {release.expires}; get a newer one from its maker")
    least = least_version()
    if least is not None and (release is None or release.version < least):
        has = "no version" if release is None else f"version {release.version}"
        raise BundleError(f"{name} has {has}, and this device accepts {least} and newer; get one from its maker")


def least_version() -> int | None:
    """The minimum version that this device accepts, None if it accepts all. Raises `BundleError` for a damaged one."""
    try:
        path = state_folder() / LEAST_VERSION
    except OSError:  # a user without a home has no state
        return None
    if not os.path.lexists(path):
        return None
    try:
        kept = unseal(LEAST_VERSION, read_file(path, STATE_BYTES, links=False))
    except OSError as error:
        raise BundleError(f"the minimum version cannot be read ({error.strerror}: {error.filename})") from error
    if kept is None:
        raise BundleError(f"{path} was changed; remove it, and run: retinaface-edge verify BUNDLE --min-version N")
    return int(kept)


def keep_least_version(version: int) -> None:
    """Accept no older version from now on. It is never lowered. Raises `BundleError` when it cannot be kept."""
    least = least_version()
    if least is not None and least >= version:
        return
    try:
        path = private_folder(state_folder()) / LEAST_VERSION
        write_atomic(path, seal(LEAST_VERSION, str(version).encode()), PRIVATE_FILE)
    except OSError as error:
        raise BundleError(f"the minimum version cannot be stored ({error.strerror}: {error.filename})") from error
