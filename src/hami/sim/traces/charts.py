"""Curves as SVG: allocation and fragmentation, a line a policy. Text in, text out.

Over the load that has arrived, or over hours where jobs leave again. A policy has a colour and a dash of its own, to be
told apart in black and white too; the legend says where its lines end.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import floor, log10

from msgspec import Struct

from hami.sim.traces.replay import Point

WIDTH, LEFT, TOP, GAP = 920, 56, 58, 70
PANEL = (WIDTH - 2 * LEFT - GAP) / 2
TALL = 242.0
BOTTOM = TOP + TALL
LEGEND, COLUMNS, LINE = BOTTOM + 78, 4, 18
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#000000", "#cc79a7", "#b8860b", "#5e3c99", "#56b4e9", "#8c2d04")
DASHES = ("", "7 3", "2 2", "9 3 2 3", "4 2", "12 3", "1 3", "6 2 1 2 1 2", "3 1")


class Axis(Struct, frozen=True):
    """What a point is drawn over."""

    title: str
    of: Callable[[Point], float]


LOAD = Axis("GPU asked for, %", lambda point: point.arrived)
HOURS = Axis("hours", lambda point: point.at / 3600)
MINUTES = Axis("minutes", lambda point: point.at / 60)
SECONDS = Axis("seconds", lambda point: point.at)


def time(curves: Mapping[str, Sequence[Point]]) -> Axis:
    """The unit in which a person would tell how long it took."""
    moments = [point.at for curve in curves.values() for point in curve]
    lasted = max(moments, default=0.0) - min(moments, default=0.0)
    return SECONDS if lasted < 120 else MINUTES if lasted < 7200 else HOURS


def svg(curves: Mapping[str, Sequence[Point]], title: str, axis: Axis = LOAD) -> str:
    """Two panels beside each other, black on white, and a legend below."""
    over = _over(curves, axis)
    worst = max((point.fragmented for curve in curves.values() for point in curve), default=10.0)
    allocated = [_line(curve, over[name], [point.allocated for point in curve]) for name, curve in curves.items()]
    wasted = [_line(curve, over[name], [point.fragmented for point in curve]) for name, curve in curves.items()]
    most = max((x for xs in over.values() for x in xs), default=100.0)
    height = LEGEND + LINE * -(-len(curves) // COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" role="img" '
        f'aria-label="{escape(title, quote=True)}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{height:g}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15" font-weight="bold">{escape(title)}</text>',
        *_panel(Frame(LEFT, most, 100.0), ("GPU allocated, %", axis.title), allocated),
        *_panel(
            Frame(LEFT + PANEL + GAP, most, worst), ("GPU free that expected pods cannot use, %", axis.title), wasted
        ),
        *_legend(curves),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _over(curves: Mapping[str, Sequence[Point]], axis: Axis) -> dict[str, list[float]]:
    """Where the points stand, from 0 on: a trace may begin at any time."""
    found = {name: [axis.of(point) for point in curve] for name, curve in curves.items()}
    first = min((x for xs in found.values() for x in xs), default=0.0)
    return {name: [x - first for x in xs] for name, xs in found.items()}


class Frame(Struct, frozen=True):
    """Where a panel begins, and the largest numbers in it."""

    left: float
    most: float
    highest: float


Line = Sequence[tuple[float, float]]


def _line(curve: Sequence[Point], xs: Sequence[float], ys: Sequence[float]) -> Line:
    return list(zip(xs, ys, strict=True)) if curve else []


def _panel(frame: Frame, titles: tuple[str, str], lines: Sequence[Line]) -> list[str]:
    """Titles above and below; a line a policy."""
    left, (title, below) = frame.left, titles
    x_ticks, y_ticks = ticks(frame.most), ticks(frame.highest)
    wide, top = max(frame.most, 1e-9), y_ticks[-1]
    found = [f'<text x="{left}" y="{TOP - 8}" font-weight="bold">{escape(title)}</text>']
    for tick in y_ticks:
        y = BOTTOM - TALL * tick / top
        found.append(f'<path d="M{left:.1f} {y:.1f}h{PANEL:.1f}" stroke="#ddd"/>')
        found.append(f'<text x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in x_ticks:
        if tick <= wide:
            x = left + PANEL * tick / wide
            found.append(f'<path d="M{x:.1f} {BOTTOM:.1f}v4" stroke="#888"/>')
            found.append(f'<text x="{x:.1f}" y="{BOTTOM + 18:.1f}" text-anchor="middle">{tick:g}</text>')
    found.append(f'<text x="{left + PANEL / 2:.1f}" y="{BOTTOM + 36:.1f}" text-anchor="middle">{escape(below)}</text>')
    for number, points in enumerate(lines):
        path = " ".join(f"{left + PANEL * x / wide:.1f},{BOTTOM - TALL * min(y / top, 1):.1f}" for x, y in points)
        found.append(f'<polyline points="{path}" fill="none" {_stroke(number)} stroke-width="1.8"/>')
    return found


def _legend(curves: Mapping[str, Sequence[Point]]) -> list[str]:
    """Names, and what was allocated and fragmented at the end."""
    said = "at the end, %: allocated, free that cannot be used"
    found = [f'<text x="{LEFT}" y="{LEGEND - 20:g}" fill="#555">{said}</text>']
    for number, (name, curve) in enumerate(curves.items()):
        x = LEFT + (WIDTH - 2 * LEFT) / COLUMNS * (number % COLUMNS)
        y = LEGEND + LINE * (number // COLUMNS)
        end = f": {curve[-1].allocated:.1f}, {curve[-1].fragmented:.1f}" if curve else ""
        found.append(f'<path d="M{x:g} {y - 4:g}h26" {_stroke(number)} stroke-width="3"/>')
        found.append(f'<text x="{x + 32:g}" y="{y:g}">{escape(name + end)}</text>')
    return found


def _stroke(number: int) -> str:
    dash = DASHES[number % len(DASHES)]
    return f'stroke="{COLOURS[number % len(COLOURS)]}"' + (f' stroke-dasharray="{dash}"' if dash else "")


def ticks(most: float) -> list[float]:
    """Round numbers from 0 to the first that is not below `most`, four to eight of them."""
    if most <= 0:
        return [0.0, 1.0]
    power = 10.0 ** floor(log10(most / 4))
    step = next(step for factor in (1, 2, 2.5, 5, 10) if most / (step := factor * power) <= 7)
    count = -int(-most // step)
    return [round(step * number, 10) for number in range(count + 1)]
