"""From the facts of a report to its page: one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from intaglio.accelerator.descriptors import BY_NAME, UNITS
from intaglio.report import charts, sentences
from intaglio.report.assumptions import assumptions
from intaglio.report.facts import DYNAMIC, Facts, OpFacts
from intaglio.report.tiles import si, tiles
from intaglio.report.time_figure import UNIT_TITLES, kind_class, lanes, occupancy, time_ticks
from intaglio.report.timing import Span
from intaglio.simulation import events
from intaglio.use import NAMES

TEMPLATES = Path(__file__).parent / "templates"
COSTLY = 12
"""Ops in the table of energy."""

KINDS = {
    "k-gemm": "linear (GEMM)", "k-attention": "attention", "k-layernorm": "LayerNorm", "k-combine": "combine experts",
    "k-route": "route, move tokens", "k-copy": "copy keys and values", "k-weights": "load weights",
    "k-transfer": "other transfers",
}  # fmt: skip

BOUND_COLOURS = {"compute": 0, "memory": 2, "latency": 6, "start": 4}


def render(facts: Facts, trace: str | None = None) -> str:
    """The page. `trace`: file name of the Perfetto trace beside it."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    values = {
        **_head(facts),
        **_ops(facts),
        **_time(facts),
        **_energy(facts),
        **_others(facts),
        "trace": trace,
    }
    values["sections"] = _sections(values)
    return environment.get_template("report.html.j2").render(values)


def perfetto(facts: Facts) -> dict[str, Any] | None:
    """The trace that belongs to the page's timeline; None if no times are known."""
    if facts.timing is None:
        return None
    spans = [
        events.Span(0, i, d.kind, BY_NAME[d.kind].unit, span.start, span.end, facts.compiled.comments[i])
        for i, (d, span) in enumerate(zip(facts.program, facts.timing.spans, strict=True))
    ]
    return events.perfetto(spans, [0], facts.compiled.config.clock_mhz)


def _asset(name: str) -> Markup:
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))  # noqa: S704 - a file of this package


def _source(name: str) -> Markup:
    return Markup('<span class="source {0}">{0}</span>').format(name)


def _head(facts: Facts) -> dict[str, Any]:
    present = {kind_class(d.kind) for d in facts.program}
    manifest, board = facts.artifact.manifest, facts.compiled.board
    return {
        "facts": facts,
        "generator": manifest.generator,
        "name": manifest.source.name,
        "source_name": Path(manifest.source.file).name,
        "title": f"{manifest.source.name} on {manifest.target}",
        "target": manifest.target,
        "part": board.part,
        "config": facts.compiled.config,
        "css": _asset("report.css"),
        "js": _asset("report.js"),
        "source": _source,
        "si": si,
        "digits": sentences.digits,
        "tiles": tiles(facts),
        "modelled": facts.modelled is not None,
        "simulated": facts.simulation is not None,
        "timed": facts.timing is not None,
        "timing_source": facts.timing.source if facts.timing else "",
        "kinds": [(kind, text) for kind, text in KINDS.items() if kind in present],
        "assumptions": assumptions(facts),
    }


def _sections(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the page links to at its top."""
    optional = {
        "roofline": "Roofline", "energy_chart": "Energy", "resources": "Resources", "routing": "Experts",
        "pareto": "Designs",
    }  # fmt: skip
    anchors = {"energy_chart": "energy", "routing": "experts", "pareto": "designs"}
    found = [(anchors.get(key, key), text) for key, text in optional.items() if values[key]]
    first = [("ops", "Ops"), *(pair for pair in found if pair[0] == "roofline"), ("time", "Time and memory")]
    rest = [pair for pair in found if pair[0] != "roofline"]
    return [*first, *rest, ("program", "Program"), ("assumptions", "Assumptions")]


def _ops(facts: Facts) -> dict[str, Any]:
    peak, timing = facts.compiled.config.macs, facts.timing
    most_cycles = max((op.cycles or 0 for op in facts.ops), default=0)
    most_energy = max((op.energy_mj or 0.0 for op in facts.ops), default=0.0)
    rows = [_row(op, peak, timing.cycles if timing else 0, most_cycles, most_energy) for op in facts.ops]
    costly = sorted(rows, key=lambda row: -row["energy"])[:COSTLY]
    return {"ops": rows, "costly": costly, "dynamic": DYNAMIC}


def _row(op: OpFacts, peak: int, frame: int, most_cycles: int, most_energy: float) -> dict[str, Any]:
    cycles = op.cycles if op.cycles is not None else op.simulated
    nodes = sentences.computing(op.op.onnx_nodes)
    return {
        "name": op.op.name,
        "node": nodes[0] if nodes and nodes[0] != op.op.name else "",
        "nodes": ", ".join(nodes),
        "kind": op.op.kind,
        "kind_class": kind_class(op.op.kind),
        "cycles": op.cycles,
        "cycles_bar": _bar(op.cycles or 0, most_cycles),
        "share": op.share(frame) if frame else 0.0,
        "simulated": op.simulated,
        "bound": op.bound,
        "macs": op.macs,
        "used": op.macs / (cycles * peak) if cycles else 0.0,
        "memory": op.actions.memory,
        "energy": op.energy_mj or 0.0,
        "energy_bar": _bar(op.energy_mj or 0.0, most_energy),
        "parts": op.energy or (),
    }


def _bar(value: float, most: float) -> str:
    """Percent of a cell that a bar fills."""
    return f"{100 * value / most:.1f}" if most else "0"


def _time(facts: Facts) -> dict[str, Any]:
    program, comments, timing = facts.program, facts.compiled.comments, facts.timing
    length = timing.cycles if timing else len(program)
    strips = [lanes(program, comments, timing)] if timing else []
    strips += [occupancy(memory, program, comments, length) for memory in facts.memories]
    both = facts.simulation is not None and facts.modelled is not None
    return {
        "strips": strips,
        "units": [UNIT_TITLES[unit] for unit in UNITS],
        "ticks": time_ticks(length, facts.compiled.config.clock_mhz if timing else None),
        "simulated_strip": lanes(program, comments, facts.simulation.timing, facts.modelled)
        if both and facts.simulation
        else None,
        "simulated_note": sentences.simulated(facts) if both else "",
        "descriptors": _descriptors(facts),
        **_roofline(facts),
    }


def _descriptors(facts: Facts) -> list[dict[str, Any]]:
    spans: Sequence[Span] = facts.timing.spans if facts.timing else [Span(0, 0)] * len(facts.program)
    return [
        {
            "kind": d.kind,
            "kind_class": kind_class(d.kind),
            "unit": UNIT_TITLES[BY_NAME[d.kind].unit],
            "start": spans[i].start,
            "cycles": spans[i].cycles,
            "bound": spans[i].bound,
            "memory": facts.actions[i].memory,
            "comment": facts.compiled.comments[i],
        }
        for i, d in enumerate(facts.program)
    ]


def _roofline(facts: Facts) -> dict[str, Any]:
    timing = facts.timing
    if timing is None:
        return {"roofline": None, "bounds": [], "bounds_label": "", "bottleneck": ""}
    points = [
        charts.Point(
            op.op.name,
            kind_class(op.op.kind),
            op.macs / op.actions.memory,
            op.macs / cycles,
            cycles / timing.cycles,
        )
        for op in facts.ops
        if op.macs and (cycles := op.cycles if op.cycles is not None else op.simulated)
    ]
    chart = charts.roofline(points, facts.compiled.config.macs, *facts.feed)
    bounds = facts.estimate.bound_by if facts.estimate else {}
    parts = [
        {
            "name": name,
            "meaning": sentences.BOUNDS[name],
            "cycles": cycles,
            "percent": round(100 * cycles / timing.cycles, 2),
            "colour": BOUND_COLOURS[name],
        }
        for name, cycles in bounds.items()
        if cycles
    ]
    label = ", ".join(f"{part['name']} {part['percent']:.0f} %" for part in parts)
    return {
        "roofline": chart,
        "bounds": parts,
        "bounds_label": label,
        "bottleneck": sentences.bottleneck(facts),
    }


def _energy(facts: Facts) -> dict[str, Any]:
    found = facts.energy
    if found is None:
        return {"energy_chart": None}
    parts = dict(sorted(found.components.items(), key=lambda pair: -pair[1]))
    rows = [{"name": name, "mj": mj, "share": mj / found.total} for name, mj in parts.items()]
    return {
        "energy_chart": charts.energy_bar(parts, found.low, found.high),
        "energy_sentence": sentences.energy(facts),
        "components": rows,
    }


def _others(facts: Facts) -> dict[str, Any]:
    this = (facts.latency_ms(facts.timing), facts.energy.total) if facts.timing and facts.energy else None
    return {
        "resources": _resources(facts),
        "on_board": facts.use is not None and facts.use.fits is not None,
        "resources_sentence": sentences.resources(facts),
        "routing": facts.routing,
        "routing_sentence": sentences.routing(facts),
        "pareto": charts.pareto(facts.explored.designs, this) if facts.explored else None,
        "pareto_sentence": sentences.pareto(facts),
        "this_design": this,
        "rough": facts.explored is not None and any(d.rough for d in facts.explored.designs),
    }


def _resources(facts: Facts) -> list[dict[str, Any]]:
    if facts.use is None:
        return []
    return [
        {
            "name": NAMES[name],
            "used": use.used,
            "available": use.available,
            "share": use.share,
            "bar": _bar(min(use.share or 0, 1), 1),
        }
        for name, use in facts.use.uses.items()
    ]


def trace_text(facts: Facts) -> str | None:
    """The trace as a file's text."""
    found = perfetto(facts)
    return None if found is None else json.dumps(found)
