"""Writes the schemas into this package: `python -m retinaface_edge.schemas`."""

from __future__ import annotations

import json
from pathlib import Path

from . import generate

if __name__ == "__main__":
    for name, content in generate().items():
        path = Path(__file__).parent / f"{name}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
