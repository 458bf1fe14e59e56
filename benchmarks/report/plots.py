"""Plots as inline SVG: no library, no script, a few kilobytes each. Text is real text, so it can be searched."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""
WIDTH, HEIGHT = 640.0, 360.0
LEFT, RIGHT, TOP, BOTTOM = 72.0, 12.0, 12.0, 44.0
TICKS = 6


@dataclass(frozen=True)
class Series:
    """One line, or one set of points: its name, its points in data units, the number of its colour, dashed or not."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: int
    dashed: bool = False


@dataclass(frozen=True)
class Axis:
    """An axis: its title and its range."""

    title: str
    low: float
    high: float

    def place(self, value: float, start: float, length: float) -> float:
        """The position of a value on `length` from `start`; values beyond the range lie at its end."""
        share = (min(max(value, self.low), self.high) - self.low) / ((self.high - self.low) or 1.0)
        return start + share * length

    def ticks(self) -> list[float]:
        """Round numbers across the range."""
        step = _round_step((self.high - self.low) / TICKS)
        first = math.ceil(self.low / step - 1e-9)
        return [index * step for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def line_plot(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """Lines over two numeric axes."""
    body = []
    for line in series:
        path = " ".join(f"{_x(x, a):.1f},{_y(y, b):.1f}" for a, b in line.points)
        dash = ' stroke-dasharray="6 4"' if line.dashed else ""
        body.append(
            f'<polyline points="{path}" fill="none" stroke="{_colour(line)}" stroke-width="2"{dash}>'
            f"<title>{escape(line.name)}</title></polyline>"
        )
    return _figure(title, [*_grid(x, y), *body], series)


def scatter_plot(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """One labelled point a series."""
    body = []
    for point in series:
        for a, b in point.points:
            px, py = _x(x, a), _y(y, b)
            body.append(
                f'<circle cx="{px:.1f}" cy="{py:.1f}" r="6" fill="{_colour(point)}">'
                f"<title>{escape(point.name)}: {a:.4g}, {b:.4g}</title></circle>"
            )
    return _figure(title, [*_grid(x, y), *body], series)


def bar_plot(title: str, groups: Sequence[str], y: Axis, series: Sequence[Series]) -> str:
    """Bars side by side in each group; a series' points are (group's index, value)."""
    room = (WIDTH - LEFT - RIGHT) / max(len(groups), 1)
    bar = 0.8 * room / max(len(series), 1)
    body = list(_grid(None, y))
    for index, one in enumerate(series):
        for group, value in one.points:
            left = LEFT + room * (group + 0.1) + bar * index
            top, bottom = _y(y, value), _y(y, y.low)
            body.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{bar:.1f}" height="{max(bottom - top, 0):.1f}" '
                f'fill="{_colour(one)}"><title>{escape(one.name)}, {escape(groups[int(group)])}: {value:.1f}'
                "</title></rect>"
            )
    for index, name in enumerate(groups):
        x = LEFT + room * (index + 0.5)
        body.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16:.1f}" text-anchor="middle">{escape(name)}</text>')
    return _figure(title, body, series)


def _figure(title: str, body: Sequence[str], series: Sequence[Series]) -> str:
    key = "".join(f'<li><span style="background:{_colour(one)}"></span>{escape(one.name)}</li>' for one in series)
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" aria-label="{escape(title, quote=True)}">'
        f'{"".join(body)}</svg><ul class="key">{key}</ul></figure>'
    )


def _grid(x: Axis | None, y: Axis) -> Iterator[str]:
    for value in y.ticks():
        at = _y(y, value)
        yield f'<line x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>'
        yield f'<text x="{LEFT - 6:g}" y="{at + 4:.1f}" text-anchor="end">{value:.4g}</text>'
    yield (
        f'<text transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2:g}) rotate(-90)" text-anchor="middle">'
        f"{escape(y.title)}</text>"
    )
    if x is None:
        return
    for value in x.ticks():
        at = _x(x, value)
        yield f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP:g}" y2="{HEIGHT - BOTTOM:g}" class="grid"/>'
        yield f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16:g}" text-anchor="middle">{value:.4g}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text x="{middle:g}" y="{HEIGHT - 6:g}" text-anchor="middle">{escape(x.title)}</text>'


def _x(axis: Axis, value: float) -> float:
    return axis.place(value, LEFT, WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return axis.place(value, HEIGHT - BOTTOM, -(HEIGHT - TOP - BOTTOM))


def _colour(series: Series) -> str:
    return COLOURS[series.colour % len(COLOURS)]


def _round_step(step: float) -> float:
    """1, 2 or 5 times a power of ten, the next that is not smaller."""
    if not step > 0.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= step * (1 - 1e-9))
