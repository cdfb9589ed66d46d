"""Curves as SVG: allocation and fragmentation over the load that has arrived, a line a policy. Text in, text out."""

from collections.abc import Mapping, Sequence
from html import escape

from hami.sim.replay import Point

WIDTH, HEIGHT, LEFT, TOP, GAP = 920, 380, 56, 48, 70
PANEL = (WIDTH - 2 * LEFT - GAP) / 2
TALL = HEIGHT - TOP - 90
COLOURS = ("#0b6e4f", "#c1440e", "#29339b", "#b8860b", "#7a306c", "#4a4e69", "#1f7a8c", "#9a031e", "#5f0f40")


def svg(curves: Mapping[str, Sequence[Point]], title: str) -> str:
    """Two panels beside each other; black on white, readable without colour by the legend's order."""
    most = max((point.arrived for curve in curves.values() for point in curve), default=100.0)
    worst = max((point.fragmented for curve in curves.values() for point in curve), default=10.0)
    allocated = {name: [(point.arrived, point.allocated) for point in curve] for name, curve in curves.items()}
    fragmented = {name: [(point.arrived, point.fragmented) for point in curve] for name, curve in curves.items()}
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title, quote=True)}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15" font-weight="bold">{escape(title)}</text>',
        *_panel(LEFT, "GPU allocated, %", allocated, most, 100.0),
        *_panel(LEFT + PANEL + GAP, "GPU free that expected pods cannot use, %", fragmented, most, _round_up(worst)),
        *_legend(list(curves)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _panel(
    left: float, title: str, lines: Mapping[str, Sequence[tuple[float, float]]], most: float, top: float
) -> list[str]:
    bottom = TOP + TALL
    found = [f'<text x="{left}" y="{TOP - 8}">{escape(title)}</text>']
    for step in range(6):
        y = bottom - TALL * step / 5
        found.append(f'<path d="M{left:.1f} {y:.1f}h{PANEL:.1f}" stroke="#ddd"/>')
        found.append(f'<text x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{top * step / 5:g}</text>')
        x = left + PANEL * step / 5
        found.append(f'<text x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{most * step / 5:.0f}</text>')
    found.append(f'<text x="{left + PANEL / 2:.1f}" y="{bottom + 32:.1f}" text-anchor="middle">GPU asked for, %</text>')
    for number, points in enumerate(lines.values()):
        path = " ".join(
            f"{left + PANEL * x / max(most, 1e-9):.1f},{bottom - TALL * min(y / top, 1):.1f}" for x, y in points
        )
        colour = COLOURS[number % len(COLOURS)]
        found.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
    return found


def _legend(names: Sequence[str]) -> list[str]:
    found = []
    for number, name in enumerate(names):
        x, y = LEFT + 130 * (number % 6), HEIGHT - 28 + 16 * (number // 6)
        found.append(f'<path d="M{x} {y}h18" stroke="{COLOURS[number % len(COLOURS)]}" stroke-width="3"/>')
        found.append(f'<text x="{x + 24}" y="{y + 4}">{escape(name)}</text>')
    return found


def _round_up(value: float) -> float:
    """The next of 5, 10, 20, 50, 100."""
    return next((step for step in (5.0, 10.0, 20.0, 50.0) if value <= step), 100.0)
