"""The type of what shows progress: it is given the items of a long step, and gives them back one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Progress = Callable[[Iterable[Any]], Iterable[Any]]
