"""The report's figures as inline SVG: densities, quantile shifts, bars of levels, sizes with intervals.

Colours come from the page's CSS classes (a: reference, b: current), so that one figure serves light, dark and print.
Coordinates are whole numbers and relative steps: a hundred columns must stay small.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from markupsafe import Markup, escape

from discrepancy.comparison.facts import LevelFacts, OrderedFacts
from discrepancy.comparison.render.numbers import figures, moment, printable, share, span_unit

_LEVELS_SHOWN = 12


def _path(points: Sequence[tuple[float, float]]) -> str:
    """Points as an SVG path of whole numbers: one absolute move, then relative lines."""
    whole = [(round(x), round(y)) for x, y in points]
    steps = [f"{x - px} {y - py}" for (px, py), (x, y) in pairwise(whole)]
    return f"M{whole[0][0]} {whole[0][1]}" + ("l" + " ".join(steps) if steps else "")


def ticks(low: float, high: float, most: int = 4) -> list[float]:
    """At most `most` + 1 round values inside [low, high]."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _text(x: float, y: float, text: str, anchor: str = "middle", kind: str = "t") -> str:
    return f'<text class="{kind}" x="{round(x)}" y="{round(y)}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(width: int, height: int, label: str, body: str, kind: str = "fig") -> Markup:
    return Markup(f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{body}</svg>')


def density(seen: OrderedFacts, *, clock: bool = False, unit: str = "") -> Markup | None:
    """Both densities on common bins, medians marked; None where there is no histogram."""
    if len(seen.edges) < 2 or not (seen.densities[0] or seen.densities[1]):
        return None
    width, left, right, top, base = 340, 8, 332, 14, 118
    low, high = seen.edges[0], seen.edges[-1]
    peak = max((d for side in seen.densities for d in side), default=0.0)
    if not peak > 0:
        return None

    def across(v: float) -> float:
        return left + (right - left) * (v - low) / (high - low)

    parts = [f'<path class="ax" d="M{left} {base}H{right}"/>']
    for side, letter in zip(seen.densities, "ab"):
        if not side:
            continue
        # Steps, not a smooth curve: what is drawn is the histogram and nothing is invented between its bins.
        outline = [(across(seen.edges[0]), float(base))]
        for k, d in enumerate(side):
            y = base - (base - top) * d / peak
            outline += [(across(seen.edges[k]), y), (across(seen.edges[k + 1]), y)]
        outline.append((across(seen.edges[-1]), float(base)))
        parts.append(f'<path class="{letter}" d="{_path(outline)}"/>')
    for k, letter in enumerate("ab"):
        median = seen.median(k)
        if median is not None and low <= median <= high:
            parts.append(f'<path class="m{letter}" d="M{round(across(median))} {base}V{top - 4}"/>')
    marks = ticks(low, high, 3 if clock else 4)
    name: Callable[[float], str] = (lambda v: moment(v, high - low)) if clock else figures
    for v in marks:
        x = across(v)
        parts.append(f'<path class="ax" d="M{round(x)} {base}v4"/>')
        anchor = "start" if x < left + 20 else "end" if x > right - 20 else "middle"
        parts.append(_text(x, base + 16, name(v), anchor))
    return _svg(width, 138, f"density of both tables{f' in {printable(unit, 40)}' if unit and not clock else ''}", "".join(parts))


def shift(seen: OrderedFacts, *, clock: bool = False) -> Markup | None:
    """Current minus reference at each quantile from 1 % to 99 %: where along the column the change sits."""
    points = [
        (p, b - a) for p, a, b in zip(seen.probabilities, *seen.quantiles) if 0 < p < 1 and math.isfinite(b - a)
    ]  # fmt: skip
    if len(points) < 2:
        return None
    width, left, right, top, base = 340, 62, 332, 12, 118
    low, high = min(0.0, *(d for _, d in points)), max(0.0, *(d for _, d in points))
    if low == high:
        low, high = -1.0, 1.0
    scale = 1.0
    unit = ""
    if clock:
        unit, scale = span_unit(max(abs(low), abs(high)))

    def up(d: float) -> float:
        return base - (base - top) * (d - low) / (high - low)

    def across(p: float) -> float:
        return left + (right - left) * p

    line = [(across(p), up(d)) for p, d in points]
    area = [(line[0][0], up(0.0)), *line, (line[-1][0], up(0.0))]
    parts = [f'<path class="sa" d="{_path(area)}z"/><path class="sl" d="{_path(line)}"/>']
    parts.append(f'<path class="ax" d="M{left} {round(up(0.0))}H{right}"/>')
    for v in ticks(low / scale, high / scale, 3):
        y = up(v * scale)
        sign = "+" if v > 0 else ""
        parts.append(_text(left - 6, y + 3, f"{sign}{figures(v)}", "end"))
        parts.append(f'<path class="gr" d="M{left} {round(y)}H{right}"/>')
    for p in (0.05, 0.25, 0.5, 0.75, 0.95):
        parts.append(_text(across(p), base + 16, f"{100 * p:.0f} %"))
    if unit:
        parts.append(_text(left - 6, base + 16, unit, "end"))
    return _svg(width, 138, "change at each quantile, current minus reference", "".join(parts))


def bars(seen: LevelFacts) -> Markup | None:
    """Shares of the most frequent levels in both tables; new and vanished levels are named as such."""
    shown = list(seen.levels[:_LEVELS_SHOWN])
    # A new or vanished level is news even where it is rare.
    special = [v for v in seen.levels[_LEVELS_SHOWN:] if v.name in seen.novel or v.name in seen.vanished][:4]
    shown += special
    if not shown:
        return None
    row, left, right = 27, 150, 480
    widest = max(max(v.reference, v.current) for v in shown) or 1.0
    parts: list[str] = []
    for k, v in enumerate(shown):
        y = k * row + 4
        tag = " (new)" if v.name in seen.novel else " (gone)" if v.name in seen.vanished else ""
        label = printable(v.name, 22 - len(tag)) + tag
        parts.append(_text(left - 8, y + 14, label, "end", "t s" if tag else "t"))
        for value, letter, shift_down in ((v.reference, "a", 0), (v.current, "b", 10)):
            length = round((right - left) * value / widest)
            if value:
                parts.append(f'<rect class="{letter}" x="{left}" y="{y + shift_down}" width="{max(length, 1)}" height="9"/>')
        parts.append(_text(right + 8, y + 14, f"{share(v.reference)} → {share(v.current)}", "start"))
    more = seen.rest + len(seen.levels) - len(shown)
    height = len(shown) * row + 4
    if more:
        parts.append(_text(left, height + 10, f"and {more:,} more levels", "start"))
        height += 16
    return _svg(600, height, "shares of levels in both tables", "".join(parts), "fig wide")


def strip(size: float | None, low: float | None, high: float | None, margin: float | None, top: float) -> Markup:
    """A size with its interval on a root scale from 0 to `top`; what lies within the margin is shaded."""
    if size is None or not top > 0:
        return Markup("")

    def across(v: float) -> int:
        return round(118 * math.sqrt(min(max(v, 0.0), top) / top)) + 1

    parts = [f'<rect class="mg" x="1" y="1" width="{across(margin) - 1}" height="14"/>'] if margin else []
    if low is not None and high is not None:
        parts.append(f'<path class="iv" d="M{across(low)} 8H{across(high)}"/>')
    parts.append(f'<circle class="pt" cx="{across(size)}" cy="8" r="3.5"/>')
    return Markup(
        f'<svg class="st" viewBox="0 0 122 16" preserveAspectRatio="xMinYMid" aria-hidden="true">{"".join(parts)}</svg>'
    )


def correlations(before: float | None, after: float | None) -> Markup:
    """Two correlations on the line from -1 to 1."""
    if before is None or after is None:
        return Markup("")
    a, b = (round(60 + 55 * max(-1.0, min(1.0, r))) for r in (before, after))
    return Markup(
        f'<svg class="st" viewBox="0 0 122 16" aria-hidden="true">'
        f'<path class="gr" d="M5 8H115M60 3V13"/><path class="iv" d="M{a} 8H{b}"/>'
        f'<circle class="a" cx="{a}" cy="8" r="4"/><circle class="b" cx="{b}" cy="8" r="4"/></svg>'
    )
