"""The build log: when, where, by whom and how a bundle was built. None of it is in the bundle."""

from __future__ import annotations

import getpass
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from retinaface_edge.runtime.bundle.bundle import Bundle


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _known(name: Callable[[], str]) -> str:
    try:
        return name()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


@dataclass
class BuildLog:
    """Begun with the build; `stages` is filled by it (see `cache.Stages.log`)."""

    begun: str = field(default_factory=_now)
    stages: list[dict[str, Any]] = field(default_factory=list)

    def text(self, bundle: Bundle) -> str:
        """The log of the finished build, JSON."""
        content = {
            "begun": self.begun,
            "finished": _now(),
            "user": _known(getpass.getuser),
            "host": platform.node(),
            "platform": platform.platform(),
            "python": platform.python_version(),
            "command": sys.argv,
            "folder": os.getcwd(),
            "output": str(bundle.path),
            "manifest_digest": bundle.manifest["digest"],
            "stages": self.stages,
        }
        return json.dumps(content, indent=2) + "\n"
