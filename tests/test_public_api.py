"""The public API changes only on purpose: docs/stability.md says what may change when."""

from __future__ import annotations

import difflib
from pathlib import Path

from public_api import public_api

SNAPSHOT = Path(__file__).parent / "public_api.txt"


def test_public_names_parameters_and_options_are_those_of_the_snapshot() -> None:
    kept, now = SNAPSHOT.read_text(encoding="utf-8"), public_api()
    difference = "\n".join(
        difflib.unified_diff(kept.splitlines(), now.splitlines(), "snapshot", "now", lineterm="", n=0)
    )
    assert kept == now, (
        f"the public API has changed; if that is meant, follow docs/stability.md and run: "
        f"python tests/public_api.py > {SNAPSHOT.relative_to(SNAPSHOT.parents[1])}\n{difference}"
    )
