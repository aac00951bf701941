"""What every unit does over time, and above the same axis what lies in the memories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from intaglio.accelerator.descriptors import BY_NAME, UNITS, Descriptor
from intaglio.report.memory_map import MemoryMap, Region
from intaglio.report.svg import Scale, number, tag
from intaglio.report.timing import Timing

LANE = 10
"""Units of the drawing per unit of the accelerator; drawings are stretched to the page."""

JOIN = Markup("").join

UNIT_TITLES = {
    "dm": "weights",
    "io": "transfers",
    "cp": "copies",
    "mm": "MAC array",
    "vu": "LayerNorm",
}

CLASSES = {
    "GEMM": "gemm",
    "ATTENTION": "attention",
    "LAYERNORM": "layernorm",
    "COMBINE": "combine",
    "ROUTE": "route",
    "MOVE_ROWS": "route",
    "COPY_KV": "copy",
    "LOAD_WEIGHTS": "weights",
}
"""Colours by kind of descriptor; the others share one."""


@dataclass(frozen=True)
class Strip:
    """One drawing along the time axis: `title` and `note` at its left, `height` in pixels."""

    title: str
    note: str
    height: int
    svg: Markup


def kind_class(kind: str) -> str:
    """The colour of a kind of descriptor."""
    return f"k-{CLASSES.get(kind, 'transfer')}"


def lanes(
    program: Sequence[Descriptor], comments: Sequence[str], timing: Timing, bounds: Timing | None = None
) -> Strip:
    """One lane per unit; what mostly waited for another unit is pale, by `bounds` (default: `timing` itself)."""
    boxes = []
    known = bounds or timing
    for index, (d, span) in enumerate(zip(program, timing.spans, strict=True)):
        lane = UNITS.index(BY_NAME[d.kind].unit)
        text = f"{index} {d.kind}: {comments[index]}, cycles {span.start:,} to {span.end:,}"
        bound = known.spans[index].bound
        text += f", mostly {bound}" if bound else ""
        boxes.append(
            tag(
                "rect",
                tag("title", text),
                x=span.start,
                y=lane * LANE + 1,
                width=max(span.cycles, 1),
                height=LANE - 2,
                class_=f"{kind_class(d.kind)} waits" if bound.startswith("wait") else kind_class(d.kind),
            )
        )
    label = f"Timeline, {timing.source}: when each of {len(boxes)} descriptors ran on the five units."
    return Strip("units", timing.source, 0, _stretched(timing.cycles, len(UNITS) * LANE, label, boxes))


def occupancy(
    memory: MemoryMap, program: Sequence[Descriptor], comments: Sequence[str], cycles: int
) -> Strip:
    """Cells of one memory over time, address 0 at the bottom; of one that is mostly empty the lower part."""
    cells = memory.cells if memory.top > 0.5 * memory.cells else max(round(1.2 * memory.top), 1)
    shapes = [
        _region(region, cells, program, comments) for region in memory.regions if region.end > region.start
    ]
    used = f"at most {100 * memory.share:.0f} % in use"
    label = f"Contents of {memory.title} over time: {used}."
    note = f"{memory.cells:,} words, {used}" + (
        f"; drawn: the first {cells:,}" if cells < memory.cells else ""
    )
    return Strip(memory.title, note, 120, _stretched(cycles, cells, label, shapes))


def _region(region: Region, cells: int, program: Sequence[Descriptor], comments: Sequence[str]) -> Markup:
    """`cells`: height of the drawing."""
    width = max(region.end - region.start, 1)
    path = "".join(
        f"M{region.start:.0f} {cells - first - count}h{width:.0f}v{count}h{-width:.0f}z"
        for first, count in region.runs
    )
    # An outline would hide what is as thin as itself.
    fine = " fine" if max(count for _, count in region.runs) < cells / 30 else ""
    text = (
        f"{comments[region.writer]}: {region.cells:,} words from {region.runs[0][0]}, "
        f"cycles {region.start:,.0f} to {region.end:,.0f}"
    )
    kind = kind_class(program[region.writer].kind)
    return tag("path", tag("title", text), d=path, class_=f"{kind} region{fine}")


def _stretched(width: int, height: int, label: str, children: Sequence[Markup]) -> Markup:
    return tag(
        "svg",
        *children,
        viewBox=f"0 0 {width} {height}",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
        class_="strip",
    )


def time_ticks(length: int, clock_mhz: int | None) -> list[tuple[float, str]]:
    """Places along the axis in percent, and what stands there: a time, or without a clock a descriptor."""
    end, unit = length / (clock_mhz or 1), " µs" if clock_mhz else ""
    if clock_mhz and end >= 5000:
        end, unit = end / 1000, " ms"
    scale = Scale(0.0, end, 0.0, 100.0)
    return [(scale(v), f"{number(v)}{unit}" if v else "0") for v in scale.ticks(10) if v < 0.96 * end]
