"""Scales, labels and elements of charts."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from intaglio.report import charts
from intaglio.report.sentences import digits
from intaglio.report.simulated import Design
from intaglio.report.svg import Scale, number, tag
from intaglio.report.tiles import si


def test_a_linear_scale_ends_where_the_drawing_does() -> None:
    scale = Scale(10.0, 20.0, 100.0, 200.0)
    assert [scale(v) for v in (10, 15, 20)] == [100, 150, 200]
    assert [scale(v) for v in (0, 99)] == [100, 200], "what lies beyond stays in the drawing"


def test_a_logarithmic_scale() -> None:
    scale = Scale(1.0, 1e4, 0.0, 400.0, log=True)
    assert scale(100) == pytest.approx(200)
    assert scale.ticks() == [1, 10, 100, 1000, 10000]
    assert Scale(0.9, 60.0, 0.0, 1.0, log=True).ticks() == pytest.approx([1, 2, 5, 10, 20, 50])


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 10.0, [0, 2, 4, 6, 8, 10]),
        (0.0, 2.73, [0, 0.5, 1, 1.5, 2, 2.5]),
        (0.0, 33957.0, [0, 10000, 20000, 30000]),
        (3.0, 7.0, [3, 4, 5, 6, 7]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert Scale(low, high, 0.0, 1.0).ticks() == pytest.approx(ticks)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.5, "0.5"), (50.0, "50"), (2000, "2k"), (1.5e6, "1.5M"), (2e-5, "2·10⁻⁵"), (3e12, "3·10¹²")],
)
def test_labels_of_axes(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.06984, "0.0698"), (1.6, "1.60"), (12.34, "12.3"), (4567.8, "4,568"), (1e-5, "0.0000100")],
)
def test_three_digits_without_an_exponent(value: float, text: str) -> None:
    assert digits(value) == text


@pytest.mark.parametrize(("value", "text"), [(960, "960 "), (7_941_000, "7.94 M"), (51.2e9, "51.2 G")])
def test_prefixes(value: float, text: str) -> None:
    assert si(value) == text


def test_what_is_given_is_escaped() -> None:
    text = tag("text", "a < b & c", class_="x", aria_label='"quoted"', missing=None, x=1.0, y=0.333333)
    assert text == ('<text class="x" aria-label="&#34;quoted&#34;" x="1" y="0.33">a &lt; b &amp; c</text>')
    assert tag("g", tag("circle", r=2)) == Markup('<g><circle r="2"/></g>')


def marks(drawing: Markup, name: str) -> list[ElementTree.Element]:
    """Elements of a drawing, which must be well-formed."""
    return ElementTree.fromstring(str(drawing)).findall(f".//{name}")


def test_the_roofline_places_ops_under_their_roofs() -> None:
    points = [
        charts.Point("memory", "k-gemm", 0.5, 20.0, 0.1),
        charts.Point("array", "k-gemm", 50.0, 240.0, 0.4),
    ]
    drawing = charts.roofline(points, 256.0, 57.0, "memory")
    (roof,) = marks(drawing, "polyline")
    corners = [tuple(map(float, pair.split(","))) for pair in roof.attrib["points"].split()]
    dots = {dot.find("title").text.split(":")[0]: dot for dot in marks(drawing, "circle")}  # type: ignore[union-attr]
    x, y = (float(dots["array"].attrib[key]) for key in ("cx", "cy"))
    assert x > corners[1][0], "right of the ridge"
    assert y > corners[1][1], "below the flat roof: y grows downwards"
    assert float(dots["memory"].attrib["cx"]) < corners[1][0]
    areas = {name: (float(dot.attrib["r"]) - 3.5) ** 2 for name, dot in dots.items()}
    assert areas["array"] / areas["memory"] == pytest.approx(4, rel=0.02), "area is time"


def test_the_slope_is_the_memory() -> None:
    drawing = charts.roofline([charts.Point("op", "k-gemm", 1.0, 57.0, 0.5)], 256.0, 57.0, "memory")
    (roof,), (dot,) = marks(drawing, "polyline"), marks(drawing, "circle")
    (x0, y0), (x1, y1), _ = (tuple(map(float, pair.split(","))) for pair in roof.attrib["points"].split())
    x, y = float(dot.attrib["cx"]), float(dot.attrib["cy"])
    assert (y - y0) / (x - x0) == pytest.approx((y1 - y0) / (x1 - x0), rel=0.05), "1 MAC per byte at 57 bytes"


def test_the_energy_bar_is_as_long_as_its_parts() -> None:
    drawing = charts.energy_bar({"static": 1.0, "arithmetic": 3.0}, 2.0, 6.0)
    first, second = marks(drawing, "rect")
    assert float(second.attrib["width"]) / float(first.attrib["width"]) == pytest.approx(3, rel=0.02)
    ends = [float(line.attrib["x1"]) for line in marks(drawing, "line") if line.attrib["class"] == "band"]
    (mark,) = marks(drawing, "circle")
    assert min(ends) < float(mark.attrib["cx"]) < max(ends)


def test_designs_on_the_front_are_joined() -> None:
    designs = [
        Design(1.0, 4.0, 10, True, "a"),
        Design(3.0, 1.0, 10, True, "b"),
        Design(3.0, 4.0, 40, False, "<c>"),
        Design(2.0, 9.0, 1, True, "few DSP"),
        Design(0.9, 3.0, 1, False, "rough", rough=True),
    ]
    drawing = charts.pareto(designs, (2.0, 2.0))
    (front,) = marks(drawing, "polyline")
    dots = {dot.find("title").text: dot.attrib for dot in marks(drawing, "circle")}  # type: ignore[union-attr]
    places = {name[0]: f"{float(dot['cx']):.1f},{float(dot['cy']):.1f}" for name, dot in dots.items()}
    assert front.attrib["points"].split() == [places["a"], places["b"]], "none beats these in what is drawn"
    assert {name: dot["class"] for name, dot in dots.items()} == {
        "a: 1.00 ms, 4.00 mJ, 10 DSP": "dot onfront",
        "b: 3.00 ms, 1.00 mJ, 10 DSP": "dot onfront",
        "<c>: 3.00 ms, 4.00 mJ, 40 DSP": "dot offfront",
        "few DSP: 2.00 ms, 9.00 mJ, 1 DSP": "dot onfront",
        "rough: 0.900 ms, 3.00 mJ, 1 DSP": "dot rough",
    }
    assert len(marks(drawing, "polygon")) == 1
    assert marks(charts.pareto(designs, None), "polygon") == []


def test_one_design_alone() -> None:
    assert len(marks(charts.pareto([Design(1.0, 1.0, 0, True, "")], None), "circle")) == 1
    assert math.isfinite(Scale.around([2.0], 0.0, 1.0, log=False)(2.0))
