"""The charts of a report, as inline SVG: roofline, energy, designs. Colours are CSS classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from markupsafe import Markup

from intaglio.report.sentences import digits, percent
from intaglio.report.simulated import Design
from intaglio.report.svg import Scale, axes, figure, number, tag

WIDTH, HEIGHT = 720.0, 380.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 20.0, 34.0, 56.0
JOIN = Markup("").join


@dataclass(frozen=True)
class Point:
    """One op on the roofline: MAC per byte of external memory, MAC per cycle, its share of the frame."""

    name: str
    kind: str
    intensity: float
    rate: float
    share: float


def roofline(points: Sequence[Point], peak: float, bytes_per_cycle: float, limit: str) -> Markup:
    """Rate over intensity, under what the array can do (`peak`) and what `limit` can feed; area is time."""
    ridge = peak / bytes_per_cycle
    x = Scale.around([*(p.intensity for p in points), ridge], LEFT, WIDTH - RIGHT, log=True)
    y = Scale.around([*(p.rate for p in points), peak], HEIGHT - BOTTOM, TOP, log=True)
    label = (
        f"Roofline: {len(points)} ops by MAC per byte and MAC per cycle. The array's roof is {number(peak)} MAC "
        f"per cycle, that of {limit} {number(bytes_per_cycle)} bytes per cycle."
    )
    return figure(
        WIDTH,
        HEIGHT,
        label,
        axes(x, y, "MAC per byte of external memory", "MAC per cycle"),
        _roof(x, y, peak, bytes_per_cycle, limit),
        JOIN(_point(x, y, p) for p in sorted(points, key=lambda p: -p.share)),
    )


def _roof(x: Scale, y: Scale, peak: float, slope: float, limit: str) -> Markup:
    ridge = peak / slope
    first = max(x.low, y.low / slope)
    corners = [(first, first * slope), (ridge, peak), (x.high, peak)]
    path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in corners)
    area = f"{path} {x.last:.1f},{y.first:.1f} {x(first):.1f},{y.first:.1f}"
    return JOIN(
        [
            tag("polygon", points=area, class_="under"),
            tag("polyline", points=path, class_="roof"),
            tag(
                "text", f"array: {number(peak)} MAC/cycle", x=x.last - 6.0, y=y(peak) - 7.0, class_="note end"
            ),
            _along(x, y, first, ridge, slope, f"{limit}: {number(slope)} B/cycle"),
        ]
    )


def _along(x: Scale, y: Scale, first: float, ridge: float, slope: float, text: str) -> Markup:
    """A label on the slope; none where the slope is shorter than it."""
    dx, dy = x(ridge) - x(first), y(ridge * slope) - y(first * slope)
    if math.hypot(dx, dy) < 7 * len(text):
        return Markup("")
    middle = ((x(first) + x(ridge)) / 2, (y(first * slope) + y(ridge * slope)) / 2 - 7)
    turn = f"rotate({math.degrees(math.atan2(dy, dx)):.1f} {middle[0]:.1f} {middle[1]:.1f})"
    return tag("text", text, x=middle[0], y=middle[1], transform=turn, class_="note middle")


def _point(x: Scale, y: Scale, point: Point) -> Markup:
    text = (
        f"{point.name}: {number(point.rate)} MAC/cycle at {number(point.intensity)} MAC/byte, "
        f"{100 * point.share:.1f} % of the frame"
    )
    radius = 3.5 + 34 * (point.share / 3.1416) ** 0.5
    return tag(
        "circle",
        tag("title", text),
        cx=x(point.intensity),
        cy=y(point.rate),
        r=radius,
        class_=f"dot {point.kind}",
    )


def energy_bar(components: Mapping[str, float], low: float, high: float) -> Markup:
    """Millijoules of one frame: components side by side, the band of their sum below."""
    total = sum(components.values())
    x = Scale(0.0, max(high, total) * 1.04, 8.0, WIDTH - 8.0)
    parts, begin = [], 0.0
    for place, (name, mj) in enumerate(components.items()):
        text = tag("title", f"{name}: {digits(mj)} mJ, {percent(mj / total, 1)}")
        width = max(x(begin + mj) - x(begin) - 1, 0.5)
        parts.append(tag("rect", text, x=x(begin), y=8.0, width=width, height=40.0, class_=f"part c{place}"))
        begin += mj
    return figure(
        WIDTH,
        96.0,
        f"Energy of one frame by component, {digits(total)} mJ in all; 90 % band {digits(low)} to {digits(high)} mJ.",
        *parts,
        _band(x, low, total, high),
        JOIN(tag("line", x1=x(v), x2=x(v), y1=76.0, y2=80.0, class_="edge") for v in x.ticks(8)),
        JOIN(
            tag("text", number(v), x=x(v), y=92.0, class_="tick middle")
            for v in x.ticks(8)
            if v < x.high * 0.97
        ),
    )


def _band(x: Scale, low: float, total: float, high: float) -> Markup:
    ends = [tag("line", x1=x(v), x2=x(v), y1=57.0, y2=69.0, class_="band") for v in (low, high)]
    middle = tag("circle", cx=x(total), cy=63.0, r=4.0, class_="bandmark")
    return JOIN([tag("line", x1=x(low), x2=x(high), y1=63.0, y2=63.0, class_="band"), *ends, middle])


def pareto(designs: Sequence[Design], this: tuple[float, float] | None) -> Markup:
    """Energy over latency of explored designs; `this`: the design of the report.

    A line joins those of the front that no other beats in these two.
    """
    marks = [(d.latency_ms, d.energy_mj) for d in designs] + ([this] if this else [])
    x = Scale.around([a for a, _ in marks], LEFT, WIDTH - RIGHT, log=True)
    y = Scale.around([b for _, b in marks], HEIGHT - BOTTOM, TOP, log=True)
    front = sorted((d for d in designs if d.pareto), key=lambda d: (d.latency_ms, d.energy_mj))
    lowest = accumulate((d.energy_mj for d in front), min)
    edge = [d for d, best in zip(front, lowest, strict=True) if d.energy_mj == best]
    line = " ".join(f"{x(d.latency_ms):.1f},{y(d.energy_mj):.1f}" for d in edge)
    most = max(d.dsp for d in designs) or 1.0
    own = _diamond(x(this[0]), y(this[1])) if this else Markup("")
    return figure(
        WIDTH,
        HEIGHT,
        f"Energy over latency of {len(designs)} designs, {len(front)} of them on the Pareto front.",
        axes(x, y, "latency, ms", "energy of a frame, mJ"),
        tag("polyline", points=line, class_="front"),
        JOIN(_design(x, y, d, most) for d in sorted(designs, key=lambda d: (not d.rough, d.pareto, -d.dsp))),
        own,
    )


def _design(x: Scale, y: Scale, design: Design, most: float) -> Markup:
    """`most`: DSP of the largest mark."""
    name = f"{design.name}: " if design.name else ""
    text = f"{name}{digits(design.latency_ms)} ms, {digits(design.energy_mj)} mJ, {design.dsp:,.0f} DSP"
    kind = "dot onfront" if design.pareto else "dot rough" if design.rough else "dot offfront"
    least, more = (1.2, 2.5) if design.rough else (3, 7)
    return tag(
        "circle",
        tag("title", text),
        cx=x(design.latency_ms),
        cy=y(design.energy_mj),
        r=least + more * max(design.dsp / most, 0.0) ** 0.5,
        class_=kind,
    )


def _diamond(x: float, y: float) -> Markup:
    points = f"{x},{y - 9} {x + 9},{y} {x},{y + 9} {x - 9},{y}"
    return tag("polygon", tag("title", "this design"), points=points, class_="this")
