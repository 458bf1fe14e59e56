"""The build log: when, where, by whom and how a bundle was built. None of it is in the bundle."""

from __future__ import annotations

import getpass
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone

from retinaface_edge.runtime.bundle.bundle import Bundle

from .stage_cache import StageRun


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _known(name: Callable[[], str]) -> str:
    try:
        return name()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"


@dataclass
class BuildLog:
    """Begun with the build; its reporter adds to `stages` (`Reporter.finished`)."""

    begun: str = field(default_factory=_now)
    stages: list[StageRun] = field(default_factory=list)

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
            "stages": [asdict(run) for run in self.stages],
        }
        return json.dumps(content, indent=2) + "\n"
