"""Charts as SVG: without scripts and fonts, in the page's colours, each with a title in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 12, 44
"""Room around a chart for what is written on its axes."""
BESIDE, ABOVE = 14, 52
"""So many letters of a name have room beside a line, and above it."""
STYLE = """\
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--soft); font: 11px system-ui, sans-serif; text-anchor: middle; }
svg .end { text-anchor: end; } svg .start { text-anchor: start; }
.axis { stroke: var(--soft); fill: none; } .grid { stroke: var(--rule); stroke-width: .5; }
.line, .mark { stroke: var(--accent); stroke-width: 2; fill: none; }
.point { fill: var(--accent); } .block { stroke: var(--accent); } .band { fill: var(--band); }
"""
"""What charts look like, in the colours that the page around them names."""


class Svg(str):
    """A drawing, which templates take for what it is: its words are escaped already."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


class Axis(NamedTuple):
    """What is on an axis: its words with their unit, and the largest value; the least is 0."""

    words: str
    most: float

    @property
    def ticks(self) -> list[float]:
        """Round numbers from 0 to the largest value, some four of them."""
        step = _round_step(self.most / 4)
        return [index * step for index in range(int(self.most / step + 1e-9) + 1)]

    def share(self, value: float) -> float:
        """Where a value is, from 0 to 1."""
        return value / self.most if self.most else 0.0


class Row(NamedTuple):
    """A line from 0 to 1: a value with its interval, or a lower bound."""

    name: str
    value: float
    lower: float
    upper: float
    is_bound: bool = False


def bar(row: Row, *, title: str) -> Svg:
    """Return a line of a chart from 0 to 1: a point and its interval, or a bound and an arrow."""
    scale = '<line class="axis" x1="4" y1="8" x2="196" y2="8"/>'
    return _svg(200, 16, title, scale + _marks(row, 4, 192, 8), "bar")


def rows(drawn: Sequence[Row], x: str, title: str) -> Svg:
    """Return a line for each value, one under the other, each with its name beside or above it."""
    above = any(len(row.name) > BESIDE for row in drawn)
    left, step = (RIGHT, 32) if above else (90, 18)
    width, floor = WIDTH - left - RIGHT, TOP + step * len(drawn)
    shapes = f'<path class="axis" d="M{left} {TOP}V{floor}H{left + width}"/>'
    for tick in Axis(x, 1.0).ticks:
        shapes += _text(left + tick * width, floor + 14, _number(tick))
    for index, row in enumerate(drawn):
        y = TOP + step * (index + 1) - 9
        place = (left + 6, y - 10) if above else (left - 6, y + 4)
        shapes += _text(*place, _shortened(row.name), START if above else END)
        shapes += _marks(row, left, width, y)
    shapes += _text(left + width / 2, floor + 36, x)
    return _svg(WIDTH, floor + BOTTOM, title, shapes, "chart")


def _shortened(name: str) -> str:
    """Return a name without its middle where there is too little room for it."""
    half = ABOVE // 2
    return name if len(name) <= ABOVE else f"{name[: half - 1]}…{name[-half:]}"


def _marks(row: Row, left: float, width: float, y: float) -> str:
    """Return what stands for a value on its line."""
    ends = row.value, row.lower, row.upper
    x, low, high = (left + width * min(max(number, 0.0), 1.0) for number in ends)
    tip = min(x + 34, left + width)
    start, end = (x, tip) if row.is_bound else (low, high)
    line = f'<line class="line" x1="{_at(start)}" y1="{y:g}" x2="{_at(end)}" y2="{y:g}"/>'
    if not row.is_bound:
        return f'{line}<circle class="point" cx="{_at(x)}" cy="{y:g}" r="4"/>'
    arrow = f"M{_at(x)} {y - 5:g}v10M{_at(tip - 6)} {y - 4:g}l6 4-6 4"
    return f'{line}<path class="mark" d="{arrow}"/>'


def curve(
    points: Sequence[tuple[float, float]],
    band: Sequence[tuple[float, float, float]],
    x: str,
    y: str,
    title: str,
) -> Svg:
    """Return a curve through (x, y) points, over a band of (x, lower, upper) if there is one."""
    tallest = max([point[1] for point in points] + [upper for _, _, upper in band], default=0)
    axes = Axis(x, max((point[0] for point in points), default=0)), Axis(y, tallest)
    shapes = ""
    if band:
        edge = [(at, upper) for at, _, upper in band]
        edge += [(at, lower) for at, lower, _ in reversed(band)]
        shapes += f'<polygon class="band" points="{_path(edge, axes)}"/>'
    shapes += f'<polyline class="line" points="{_path(points, axes)}"/>'
    return _svg(WIDTH, HEIGHT, title, _frame(*axes) + shapes, "chart")


def bars(names: Sequence[str], heights: Sequence[float], x: str, y: str, title: str) -> Svg:
    """Return a bar for each name."""
    axis = Axis(y, max(heights, default=0))
    room, floor = (WIDTH - LEFT - RIGHT) / max(len(names), 1), HEIGHT - BOTTOM
    words = blocks = ""
    for index, (name, height) in enumerate(zip(names, heights, strict=True)):
        middle = LEFT + (index + 0.5) * room
        if height:
            blocks += f"M{_at(middle)} {floor}V{_at(_down(axis.share(height)))}"
        # Names next to each other would touch where there are many.
        if index % (1 + len(names) // 11) == 0:
            words += _text(middle, floor + 14, name)
    drawn = f'<path class="block" stroke-width="{_at(room - 2)}" d="{blocks}"/>'
    return _svg(WIDTH, HEIGHT, title, _frame(Axis(x, 0), axis) + drawn + words, "chart")


def octaves(incidence: Sequence[int], states: Sequence[int]) -> tuple[list[str], list[int]]:
    """Return numbers of states by the samples they were seen in: 1, 2 or 3, 4 to 7, and so on.

    Parameters
    ----------
    incidence, states
        In how many samples states were seen, and how many states in so many.
    """
    sums: dict[int, int] = {}
    for samples, number in zip(incidence, states, strict=True):
        octave = int(samples).bit_length() - 1
        sums[octave] = sums.get(octave, 0) + int(number)
    octave_range = range(max(sums, default=-1) + 1)
    return [_power(octave) for octave in octave_range], [sums.get(o, 0) for o in octave_range]


_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def _power(octave: int) -> str:
    return f"{1 << octave}" if octave < 7 else f"2{str(octave).translate(_RAISED)}"


def _frame(x: Axis, y: Axis) -> str:
    """Return both axes with their numbers and words."""
    floor, end = HEIGHT - BOTTOM, WIDTH - RIGHT
    lines, grid = f'<path class="axis" d="M{LEFT} {TOP}V{floor}H{end}"/>', ""
    for tick in y.ticks:
        at = _down(y.share(tick))
        grid += f"M{LEFT} {_at(at)}H{end}"
        lines += _text(LEFT - 6, at + 4, _number(tick), END)
    lines += f'<path class="grid" d="{grid}"/>'
    if x.most:
        for tick in x.ticks:
            lines += _text(_across(x.share(tick)), floor + 14, _number(tick))
    middle = (TOP + floor) / 2
    turned = f' transform="rotate(-90 12 {middle:.0f})"'
    lines += _text(12, middle, y.words, turned)
    return lines + _text((LEFT + end) / 2, HEIGHT - 8, x.words)


def _path(points: Sequence[tuple[float, float]], axes: tuple[Axis, Axis]) -> str:
    x, y = axes
    return " ".join(f"{_at(_across(x.share(a)))},{_at(_down(y.share(b)))}" for a, b in points)


def _across(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _down(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _at(place: float) -> str:
    """Return a place in a drawing, as short as it can be said."""
    return f"{place:.1f}".removesuffix(".0")


START, END = ' class="start"', ' class="end"'


def _text(x: float, y: float, words: str, more: str = "") -> str:
    return f'<text x="{_at(x)}" y="{_at(y)}"{more}>{escape(words)}</text>'


def _svg(width: int, height: int, title: str, content: str, kind: str) -> Svg:
    return Svg(
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}">{content}</svg>'
    )


def _number(value: float) -> str:
    """Return a number of an axis, short: 2,000 or 1.5M."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if value >= size:
            return f"{value / (1000 if unit == 'k' else size):g}{unit}"
    return f"{value:,.12g}"


def _round_step(least: float) -> float:
    """Return the next number of one digit that is 1, 2 or 5."""
    if least <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= least)
