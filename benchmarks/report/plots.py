"""Plots as inline SVG: no library, no script, a few kilobytes each. Text is real text, so it can be searched.

Colours are classes (`c0` to `c7`) that the style sheet defines, one set for light and one for dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = 8
WIDTH, HEIGHT = 640.0, 360.0
LEFT, RIGHT, TOP, BOTTOM = 88.0, 12.0, 18.0, 50.0
ROW_HEIGHT, BAR_HEIGHT = 42.0, 14.0
"""Of horizontal bars: a row has the name above the bar, so that both fit a narrow screen."""
TICKS = 6
LETTER = 10.0
"""Width of a letter, about, on a narrow screen, where they are largest."""
SMALL_LETTER = 6.5
"""The same in a file of its own, which is shown as large as it is drawn."""
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#000")
"""Okabe and Ito's palette, as in the style sheet."""
ANCHOR_END = ' text-anchor="end"'


@dataclass(frozen=True)
class Series:
    """One line, or one set of points: its name, its points in data units, the number of its colour, dashed or not."""

    name: str
    points: tuple[tuple[float, float], ...]
    colour: int
    dashed: bool = False


@dataclass(frozen=True)
class Bar:
    """One horizontal bar: its name, the lengths of its parts from left to right, and what is written behind it."""

    name: str
    parts: tuple[float, ...]
    label: str


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
    """Lines over two numeric axes. What lies beyond an axis is drawn at its end, and the figure says so."""
    body = []
    for line in series:
        path = " ".join(f"{_x(x, a):.1f},{_y(y, b):.1f}" for a, b in line.points)
        dash = ' stroke-dasharray="6 4"' if line.dashed else ""
        body.append(
            f'<polyline points="{path}" class="line {_colour(line.colour)}"{dash}>'
            f"<title>{escape(line.name)}</title></polyline>"
        )
    return _figure(title, [*_grid(x, y), *body], series, cut=_cut(y, series))


def scatter_plot(title: str, x: Axis, y: Axis, series: Sequence[Series]) -> str:
    """One labelled point per series."""
    body = []
    for point in series:
        for a, b in point.points:
            px, py = _x(x, a), _y(y, b)
            left = px + 9 + LETTER * len(point.name) > WIDTH - RIGHT  # the name would not fit on the right
            body.append(
                f'<circle cx="{px:.1f}" cy="{py:.1f}" r="6" class="area {_colour(point.colour)}">'
                f"<title>{escape(point.name)}: {a:.4g}, {b:.4g}</title></circle>"
                f'<text x="{px - 9 if left else px + 9:.1f}" y="{py + 4:.1f}"{ANCHOR_END if left else ""}>'
                f"{escape(point.name)}</text>"
            )
    return _figure(title, [*_grid(x, y), *body], series)


def front_plot(
    title: str,
    x: Axis,
    y: Axis,
    points: Sequence[Series],
    front: Series,
    labels: Mapping[str, str],
    key: Sequence[Series],
) -> str:
    """A standalone SVG file: one point per series, `labels` by the names of some, and a line through the front.

    Labels stand below and above their points in turns, since points of a front may lie close together.
    """
    path = " ".join(f"{_x(x, a):.1f},{_y(y, b):.1f}" for a, b in front.points)
    body = [*_grid(x, y), f'<polyline points="{path}" class="front"/>']
    turns = list(labels)
    for point in points:
        ((a, b),) = point.points
        px, py, label = _x(x, a), _y(y, b), labels.get(point.name)
        body.append(
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="{4 if label is None else 6}" class="{_colour(point.colour)}">'
            f"<title>{escape(point.name)}: {a:.4g}, {b:.4g}</title></circle>"
        )
        if label is not None:
            left = px + 9 + SMALL_LETTER * len(label) > WIDTH - RIGHT
            at, end = (px - 9, ANCHOR_END) if left else (px + 9, "")
            down = -8 if turns.index(point.name) % 2 else 14
            body.append(f'<text x="{at:.1f}" y="{py + down:.1f}"{end}>{escape(label)}</text>')
    for row, entry in enumerate(key):
        at = HEIGHT + ROW_HEIGHT / 2 * row
        body.append(f'<circle cx="{LEFT:g}" cy="{at + 4:g}" r="5" class="{_colour(entry.colour)}"/>')
        body.append(f'<text x="{LEFT + 12:g}" y="{at + 8:g}">{escape(entry.name)}</text>')
    height = HEIGHT + ROW_HEIGHT / 2 * len(key)
    colours = "".join(f".c{index}{{fill:{colour}}}" for index, colour in enumerate(PALETTE))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 -24 {WIDTH:g} {height + 24:g}">'
        f"<title>{escape(title)}</title><style>text{{font:12px system-ui,sans-serif;fill:#333}}"
        f".grid{{stroke:#e2e2e2}}.front{{fill:none;stroke:#767676;stroke-dasharray:6 4}}{colours}</style>"
        f'<rect y="-24" width="{WIDTH:g}" height="{height + 24:g}" fill="#fff"/>'
        f'<text x="{LEFT:g}" y="-6">{escape(title)}</text>{"".join(body)}</svg>\n'
    )


def bar_plot(title: str, groups: Sequence[str], y: Axis, series: Sequence[Series]) -> str:
    """Bars side by side in each group; a series' points are (group's index, value).

    A bar that is longer than the axis is cut and has an arrow head; the figure says so.
    """
    room = (WIDTH - LEFT - RIGHT) / max(len(groups), 1)
    bar = 0.8 * room / max(len(series), 1)
    body = list(_grid(None, y))
    for index, one in enumerate(series):
        for group, value in one.points:
            left = LEFT + room * (group + 0.1) + bar * index
            top, bottom = _y(y, value), _y(y, y.low)
            body.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{bar:.1f}" height="{max(bottom - top, 0):.1f}" '
                f'class="area {_colour(one.colour)}"><title>{escape(one.name)}, {escape(groups[int(group)])}: '
                f"{value:.1f}</title></rect>"
            )
            if value > y.high:
                body.append(_arrow_head(left + bar / 2, top, bar / 2))
    for index, name in enumerate(groups):
        x = LEFT + room * (index + 0.5)
        body.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 18:.1f}" text-anchor="middle">{escape(name)}</text>')
    return _figure(title, body, series, cut=_cut(y, series))


def horizontal_bars(title: str, unit: str, parts: Sequence[str], bars: Sequence[Bar]) -> str:
    """One bar per name from top to bottom, each of the same `parts` one after the other."""
    behind = LETTER * max(len(bar.label) for bar in bars) + 8
    scale = Axis(unit, 0.0, max(sum(bar.parts) for bar in bars) or 1.0)
    body = []
    for row, bar in enumerate(bars):
        top, at, total = ROW_HEIGHT * row, 0.0, 0.0
        body.append(f'<text x="0" y="{top + 18:.1f}">{escape(bar.name)}</text>')
        for index, value in enumerate(bar.parts):
            total += value
            end = scale.place(total, 0.0, WIDTH - behind)
            body.append(
                f'<rect x="{at:.1f}" y="{top + 22:.1f}" width="{max(end - at, 0):.1f}" height="{BAR_HEIGHT:g}" '
                f'class="area {_colour(index)}"><title>{escape(bar.name)}, {escape(parts[index])}: {value:.2f} '
                f"{escape(unit)}</title></rect>"
            )
            at = end
        body.append(f'<text x="{at + 6:.1f}" y="{top + 22 + BAR_HEIGHT - 2:.1f}">{escape(bar.label)}</text>')
    key = [Series(name, (), index) for index, name in enumerate(parts)]
    return _figure(title, body, key, height=ROW_HEIGHT * len(bars) + 4)


def _figure(
    title: str, body: Sequence[str], series: Sequence[Series], height: float = HEIGHT, cut: str | None = None
) -> str:
    key = "".join(
        f'<li><span class="swatch {_colour(one.colour)}{" dashed" if one.dashed else ""}"></span>'
        f"{escape(one.name)}</li>"
        for one in series
    )
    note = f'<p class="note">{escape(cut)}</p>' if cut else ""
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH:g} {height:g}" role="img" aria-label="{escape(title, quote=True)}">'
        f'{"".join(body)}</svg><ul class="key">{key}</ul>{note}</figure>'
    )


def _cut(axis: Axis, series: Sequence[Series]) -> str | None:
    """The sentence on values beyond the end of an axis, None where there are none."""
    if any(value > axis.high for one in series for _, value in one.points):
        return f"Values above {axis.high:g} are cut at the upper edge."
    return None


def _arrow_head(x: float, y: float, half: float) -> str:
    half = min(half, 7.0)
    points = f"{x - half:.1f},{y:.1f} {x + half:.1f},{y:.1f} {x:.1f},{y - 8:.1f}"
    return f'<polygon points="{points}" class="cut"/>'


def _grid(x: Axis | None, y: Axis) -> Iterator[str]:
    for value in y.ticks():
        at = _y(y, value)
        yield f'<line x1="{LEFT:g}" x2="{WIDTH - RIGHT:g}" y1="{at:.1f}" y2="{at:.1f}" class="grid"/>'
        yield f'<text x="{LEFT - 6:g}" y="{at + 4:.1f}" text-anchor="end">{value:.4g}</text>'
    yield (
        f'<text transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2:g}) rotate(-90)" text-anchor="middle">'
        f"{escape(y.title)}</text>"
    )
    if x is None:
        return
    for value in x.ticks():
        at = _x(x, value)
        yield f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP:g}" y2="{HEIGHT - BOTTOM:g}" class="grid"/>'
        yield f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 18:g}" text-anchor="middle">{value:.4g}</text>'
    middle = (LEFT + WIDTH - RIGHT) / 2
    yield f'<text x="{middle:g}" y="{HEIGHT - 6:g}" text-anchor="middle">{escape(x.title)}</text>'


def _x(axis: Axis, value: float) -> float:
    return axis.place(value, LEFT, WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return axis.place(value, HEIGHT - BOTTOM, -(HEIGHT - TOP - BOTTOM))


def _colour(number: int) -> str:
    return f"c{number % COLOURS}"


def _round_step(step: float) -> float:
    """1, 2 or 5 times a power of ten, the next that is not smaller."""
    if not step > 0.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= step * (1 - 1e-9))
