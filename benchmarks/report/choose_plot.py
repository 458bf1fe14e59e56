"""The front of `choose` as a picture: accuracy against milliseconds, one colour per bundle."""

from __future__ import annotations

from ..choose.result import ChooseResult
from .plots import Axis, Series, front_plot


def choose_plot(result: ChooseResult) -> str:
    """A standalone SVG: every candidate, a line through the front, and its artifacts' names."""
    colours = {bundle.name: index for index, bundle in enumerate(result.bundles)}
    front = result.front()
    points = [
        Series(candidate.name, ((candidate.ms, candidate.ap),), colours[candidate.bundle])
        for candidate in result.candidates
    ]
    line = Series("front", tuple((candidate.ms, candidate.ap) for candidate in front), 0, dashed=True)
    key = [Series(name, (), colour) for name, colour in colours.items()]
    aps = [candidate.ap for candidate in result.candidates]
    what = "AP" if result.reference is None else f"agreement with {result.reference}"
    x = Axis("milliseconds per frame, median", 0.0, 1.1 * max(candidate.ms for candidate in result.candidates))
    y = Axis(what, max(0.0, min(aps) - 0.02), min(1.0, max(aps) + 0.02))
    title = f"{what} on {result.dataset.name} against latency (up and left is better)"
    labels = {candidate.name: str(candidate.artifact) for candidate in front}
    return front_plot(title, x, y, points, line, labels, key)
