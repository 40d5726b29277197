"""Plots as SVG, by hand: a panel or several side by side, with points, error bars and lines. Free of torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# Okabe and Ito's colours, which all eyes can tell apart.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 470, 330, 62, 14, 34, 52
_LEGEND_ROW, _MARK = 20, 31


@dataclass(frozen=True)
class Point:
    """A value.

    Attributes:
        x, y: where.
        spread: half the length of the error bar; None draws none.
        hollow: drawn as a ring.
    """

    x: float
    y: float
    spread: float | None = None
    hollow: bool = False


@dataclass(frozen=True)
class Series:
    """Points of one colour.

    Attributes:
        name: for the legend.
        color: number in `COLORS`.
        points: in order.
        joined: by a line.
        dashed: that line is dashed, and the points are squares.
    """

    name: str
    color: int
    points: tuple[Point, ...]
    joined: bool = True
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title, x_label, y_label: texts.
        series: what is drawn.
        x_ticks: (place, text); the axis spans them.
        log_x, log_y: logarithmic axes.
        margin: share of the width that stays free on each side.
        zero: a line at 0.
    """

    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    x_ticks: tuple[tuple[float, str], ...]
    log_x: bool = False
    log_y: bool = False
    margin: float = 0.06
    zero: bool = False


def svg(panels: Sequence[Panel]) -> str:
    """Return panels side by side, with one legend below for the series of all."""
    entries = {s.name: s for panel in panels for s in panel.series}
    width = _WIDTH * len(panels)
    # About 6.6 pixels a letter, behind a mark.
    room = max((_MARK + 6.6 * len(name) for name in entries), default=1.0) + 12
    columns = max(1, min(len(entries), int((width - _LEFT) // room)))
    height = _HEIGHT + _LEGEND_ROW * math.ceil(len(entries) / columns) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="system-ui, sans-serif" font-size="12" fill="#222">',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for number, panel in enumerate(panels):
        parts.append(f'<g transform="translate({number * _WIDTH} 0)">{_panel(panel)}</g>')
    for number, series in enumerate(entries.values()):
        x = _LEFT + (number % columns) * room
        y = _HEIGHT + 8 + _LEGEND_ROW * (number // columns)
        mark = _mark(x + 12, y, Point(0, 0), series)
        line = _line([(x, y), (x + 24, y)], series) if series.joined else ""
        parts.append(f'{line}{mark}<text x="{x + _MARK:.1f}" y="{y + 4:.1f}">{escape(series.name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel) -> str:
    low, high, ticks = _y_axis(panel)
    first, last = panel.x_ticks[0][0], panel.x_ticks[-1][0]
    wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def across(x: float) -> float:
        a, b, c = (math.log(v) if panel.log_x else v for v in (first, last, x))
        part = (c - a) / (b - a) if b > a else 0.5
        return _LEFT + wide * (panel.margin + (1 - 2 * panel.margin) * part)

    def down(y: float) -> float:
        a, b, c = (math.log(v) if panel.log_y else v for v in (low, high, min(max(y, low), high)))
        return _TOP + tall * (1 - (c - a) / (b - a))

    middle = f"{_TOP + tall / 2:.1f}"
    parts = [
        f'<text x="{_LEFT}" y="20" font-weight="600">{escape(panel.title)}</text>',
        f'<text x="{_LEFT + wide / 2:.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{escape(panel.x_label)}</text>',
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">'
        f"{escape(panel.y_label)}</text>",
    ]
    for value in ticks:
        y = down(value)
        parts.append(f'<path d="M{_LEFT} {y:.1f}h{wide}" stroke="#e3e3e3"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for place, text in panel.x_ticks:
        x = across(place)
        parts.append(f'<path d="M{x:.1f} {_TOP + tall}v5" stroke="#888"/>')
        parts.append(f'<text x="{x:.1f}" y="{_TOP + tall + 18}" text-anchor="middle">{escape(text)}</text>')
    parts.append(f'<path d="M{_LEFT} {_TOP}v{tall}h{wide}" fill="none" stroke="#888"/>')
    if panel.zero and low < 0 < high:
        parts.append(f'<path d="M{_LEFT} {down(0):.1f}h{wide}" stroke="#555"/>')
    for number, series in enumerate(panel.series):
        # Side by side, so that no error bar hides another.
        aside = 3.0 * (number - (len(panel.series) - 1) / 2) if any(p.spread for p in series.points) else 0.0
        if series.joined:
            parts.append(_line([(across(p.x) + aside, down(p.y)) for p in series.points], series))
        for point in series.points:
            x = across(point.x) + aside
            if point.spread:
                top, bottom = down(point.y + point.spread), down(point.y - point.spread)
                parts.append(
                    f'<path d="M{x:.1f} {top:.1f}V{bottom:.1f}M{x - 4:.1f} {top:.1f}h8M{x - 4:.1f} {bottom:.1f}h8"'
                    f' stroke="{_color(series)}" stroke-width="1.2"/>'
                )
            parts.append(_mark(x, down(point.y), point, series))
    return "\n".join(parts)


def _y_axis(panel: Panel) -> tuple[float, float, list[float]]:
    """Return both ends of the vertical axis and its ticks."""
    points = [p for series in panel.series for p in series.points]
    if panel.log_y:
        values = [p.y for p in points if p.y > 0] or [1.0]
        low, high = (
            10.0 ** edge(math.log10(v)) for edge, v in ((math.floor, min(values)), (math.ceil, max(values)))
        )
        high = high if high > low else 10 * low
        return low, high, [10.0**k for k in range(round(math.log10(low)), round(math.log10(high)) + 1)]
    low = min((p.y - (p.spread or 0) for p in points), default=0.0)
    high = max((p.y + (p.spread or 0) for p in points), default=1.0)
    rough = max(high - low, 1e-9) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough * (1 - 1e-9))
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    high = high if high > low else low + step
    count = math.floor((high - low) / step + 1e-6)
    return low, high, [round(low + k * step, 10) for k in range(count + 1)]


def _color(series: Series) -> str:
    return COLORS[series.color % len(COLORS)]


def _line(places: Sequence[tuple[float, float]], series: Series) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dash = ' stroke-dasharray="5 4"' if series.dashed else ""
    return f'<polyline points="{points}" fill="none" stroke="{_color(series)}" stroke-width="1.8"{dash}/>'


def _mark(x: float, y: float, point: Point, series: Series) -> str:
    fill = "#fff" if point.hollow else _color(series)
    look = f'fill="{fill}" stroke="{_color(series)}" stroke-width="1.8"'
    if series.dashed:
        return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" {look}/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" {look}/>'
