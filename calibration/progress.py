"""The type of progress reporters: they wrap the items of a long step and yield them one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Progress = Callable[[Iterable[Any]], Iterable[Any]]
