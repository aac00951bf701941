"""Elements, scales and axes of charts, as SVG text: numbers in, markup out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def tag(name: str, *children: str | Markup, **attributes: object) -> Markup:
    """One element. A trailing `_` of an attribute is dropped, the others become `-`; `None` leaves it out."""
    pairs = [
        (key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None
    ]
    head = "".join(f' {key}="{escape(_text(value))}"' for key, value in pairs)
    body = Markup("").join(children)
    return Markup(f"<{name}{head}>{body}</{name}>" if children else f"<{name}{head}/>")  # noqa: S704 - escaped above


def _text(value: object) -> str:
    """Numbers as short as a hundredth of a pixel allows."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def figure(width: float, height: float, label: str, *children: Markup) -> Markup:
    """A drawing that scales with its column; `label` is what a screen reader says of it."""
    box = f"0 0 {_text(width)} {_text(height)}"
    return tag("svg", *children, viewBox=box, role="img", aria_label=label, class_="chart")


@dataclass(frozen=True)
class Scale:
    """Maps `low`..`high` to `first`..`last` of the drawing, by logarithms if `log`."""

    low: float
    high: float
    first: float
    last: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        share = (value - low) / (high - low)
        return self.first + min(max(share, 0.0), 1.0) * (self.last - self.first)

    def ticks(self, count: int = 6) -> list[float]:
        """Round numbers within the range: powers of ten and, where these are few, their doubles and halves."""
        return _decades(self.low, self.high) if self.log else _steps(self.low, self.high, count)

    @staticmethod
    def around(values: Sequence[float], first: float, last: float, *, log: bool) -> Scale:
        """A scale with some room around `values`, which are positive."""
        low, high = min(values), max(values)
        if log:
            margin = max((high / low) ** 0.08, 1.15)
            return Scale(low / margin, high * margin, first, last, log=True)
        return Scale(0.0, high * 1.08 or 1.0, first, last)


def _steps(low: float, high: float, count: int) -> list[float]:
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _decades(low: float, high: float) -> list[float]:
    factors = (1,) if math.log10(high / low) > 3 else (1, 2, 5)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    values = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    return [value for value in values if low <= value <= high]


def number(value: float) -> str:
    """A label of an axis: 0.5, 20, 5k, 2M; powers of ten beyond."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e3:
        return f"{value:.3g}"
    for power, unit in ((9, "G"), (6, "M"), (3, "k")):
        if 10**power <= abs(value) < 10 ** (power + 3):
            return f"{value / 10**power:.3g}{unit}"
    exponent = math.floor(math.log10(abs(value)))
    return f"{value / 10**exponent:.2g}·10{str(exponent).translate(SUPERSCRIPTS)}"


def axes(x: Scale, y: Scale, x_title: str, y_title: str) -> Markup:
    """Grid, labels and titles of a chart whose plot lies between the ends of `x` and `y`."""
    left, right, bottom, top = x.first, x.last, y.first, y.last
    parts = [tag("line", x1=x(v), x2=x(v), y1=top, y2=bottom, class_="grid") for v in x.ticks()] + [
        tag("line", x1=left, x2=right, y1=y(v), y2=y(v), class_="grid") for v in y.ticks()
    ]
    parts += [tag("text", number(v), x=x(v), y=bottom + 16.0, class_="tick middle") for v in x.ticks()]
    parts += [tag("text", number(v), x=left - 8.0, y=y(v) + 4.0, class_="tick end") for v in y.ticks()]
    middle = (left + right) / 2
    parts.append(tag("text", x_title, x=middle, y=bottom + 36.0, class_="axis middle"))
    parts.append(tag("text", y_title, x=left - 40.0, y=top - 12.0, class_="axis"))
    return Markup("").join(parts)
