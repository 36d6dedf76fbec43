"""Charts as SVG: without scripts and fonts, in the page's colours, each with a title in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 12, 44
"""Room around a chart for what is written on its axes."""
MOST_LETTERS = 14
"""Of a name beside a line."""


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


def bar(row: Row, *, title: str) -> Markup:
    """Return a line of a chart from 0 to 1: a point and its interval, or a bound and an arrow."""
    scale = '<line class="axis" x1="4" y1="8" x2="196" y2="8"/>'
    return _svg(200, 16, title, scale + _marks(row, 4, 192, 8), "bar")


def rows(drawn: Sequence[Row], x: str, title: str) -> Markup:
    """Return a line for each value, one under the other, with its name at its left."""
    left, width, step = 90, WIDTH - 90 - RIGHT, 18
    floor = TOP + step * len(drawn)
    shapes = f'<path class="axis" d="M{left} {TOP} V{floor} H{left + width}"/>'
    for tick in Axis(x, 1.0).ticks:
        shapes += _text(left + tick * width, floor + 14, _number(tick), "middle")
    for index, row in enumerate(drawn):
        y = TOP + step * index + step / 2
        name = row.name if len(row.name) <= MOST_LETTERS else f"{row.name[: MOST_LETTERS - 1]}…"
        shapes += _text(left - 6, y + 4, name, "end") + _marks(row, left, width, y)
    shapes += _text(left + width / 2, floor + 36, x, "middle")
    return _svg(WIDTH, floor + BOTTOM, title, shapes, "chart")


def _marks(row: Row, left: float, width: float, y: float) -> str:
    """Return what stands for a value on its line."""
    ends = row.value, row.lower, row.upper
    x, low, high = (left + width * min(max(number, 0.0), 1.0) for number in ends)
    if not row.is_bound:
        return (
            f'<line class="interval" x1="{low:.1f}" y1="{y:g}" x2="{high:.1f}" y2="{y:g}"/>'
            f'<circle class="point" cx="{x:.1f}" cy="{y:g}" r="4"/>'
        )
    tip = min(x + 34, left + width)
    head = f"M{tip - 6:.1f} {y - 4:g} L{tip:.1f} {y:g} L{tip - 6:.1f} {y + 4:g}"
    return (
        f'<line class="interval" x1="{x:.1f}" y1="{y:g}" x2="{tip:.1f}" y2="{y:g}"/>'
        f'<path class="mark" d="{head}"/>'
        f'<line class="mark" x1="{x:.1f}" y1="{y - 5:g}" x2="{x:.1f}" y2="{y + 5:g}"/>'
    )


def curve(
    points: Sequence[tuple[float, float]],
    band: Sequence[tuple[float, float, float]],
    x: str,
    y: str,
    title: str,
) -> Markup:
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


def bars(names: Sequence[str], heights: Sequence[float], x: str, y: str, title: str) -> Markup:
    """Return a bar for each name."""
    axis = Axis(y, max(heights, default=0))
    room = (WIDTH - LEFT - RIGHT) / max(len(names), 1)
    shapes = ""
    for index, (name, height) in enumerate(zip(names, heights, strict=True)):
        left, top = LEFT + index * room, _down(axis.share(height))
        shapes += (
            f'<rect class="block" x="{left + 1:.1f}" y="{top:.1f}" width="{room - 2:.1f}" '
            f'height="{HEIGHT - BOTTOM - top:.1f}"/>'
        )
        # Names next to each other would touch where there are many.
        if index % (1 + len(names) // 11) == 0:
            shapes += _text(left + room / 2, HEIGHT - BOTTOM + 14, name, "middle")
    frame = _frame(Axis(x, 0), axis)
    return _svg(WIDTH, HEIGHT, title, frame + shapes, "chart")


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


def _power(octave: int) -> str:
    return f"{1 << octave}" if octave < 7 else f"2^{octave}"


def _frame(x: Axis, y: Axis) -> str:
    """Return both axes with their numbers and words."""
    floor, end = HEIGHT - BOTTOM, WIDTH - RIGHT
    lines, grid = f'<path class="axis" d="M{LEFT} {TOP} V{floor} H{end}"/>', ""
    for tick in y.ticks:
        at = _down(y.share(tick))
        grid += f"M{LEFT} {at:.1f}H{end}"
        lines += _text(LEFT - 6, at + 4, _number(tick), "end")
    lines += f'<path class="grid" d="{grid}"/>'
    if x.most:
        for tick in x.ticks:
            lines += _text(_across(x.share(tick)), floor + 14, _number(tick), "middle")
    middle = (TOP + floor) / 2
    turned = f' transform="rotate(-90 12 {middle:.0f})"'
    lines += _text(12, middle, y.words, "middle", turned)
    return lines + _text((LEFT + end) / 2, HEIGHT - 8, x.words, "middle")


def _path(points: Sequence[tuple[float, float]], axes: tuple[Axis, Axis]) -> str:
    x, y = axes
    return " ".join(f"{_across(x.share(a)):.1f},{_down(y.share(b)):.1f}" for a, b in points)


def _across(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _down(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _text(x: float, y: float, words: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(words)}</text>'


def _svg(width: int, height: int, title: str, content: str, kind: str) -> Markup:
    return Markup(
        f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>{content}</svg>'
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
