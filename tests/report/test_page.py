"""The page: well-formed, complete, without anything from outside, and with the figures that it was given."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from intaglio import artifact
from intaglio.accelerator.descriptors import UNITS
from intaglio.report import Facts, Question, collect, render, trace_text

VOID = {"meta", "link", "input", "br", "img", "hr"}
OUTSIDE = {"https://ui.perfetto.dev"}


class Page(HTMLParser):
    """Checks nesting and collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[list[str]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        assert len(values) == len(attrs), f"an attribute of <{tag}> stands twice"
        self.tags.append((tag, values))
        if values.get("id"):
            self.ids.append(str(values["id"]))
        self.links += [str(values[name]) for name in ("href", "src", "xlink:href") if values.get(name)]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th") and self.cells:
            self.cells[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("style", "script"):
            self.texts.append(data)
        if {"td", "th"} & set(self.open) and self.cells:
            self.cells[-1][-1] += data


@pytest.fixture(scope="module")
def parsed(page: str) -> Page:
    return Page(page)


def test_ids_are_unique_and_links_lead_somewhere(parsed: Page) -> None:
    assert len(parsed.ids) == len(set(parsed.ids))
    inside = [link for link in parsed.links if link.startswith("#")]
    assert inside
    assert {link[1:] for link in inside} <= set(parsed.ids)
    assert {link for link in parsed.links if not link.startswith("#")} == OUTSIDE | {"report.trace.json"}


def test_nothing_is_loaded_from_outside(page: str, parsed: Page) -> None:
    loading = {"link", "img", "iframe", "object", "embed", "audio", "video", "source", "base"}
    assert not loading & {tag for tag, _ in parsed.tags}
    assert all("src" not in values for tag, values in parsed.tags if tag == "script")
    assert not re.search(r"url\(|@import|@font-face|fetch\(|XMLHttpRequest|import\s*\(", page)


def test_every_op_is_on_the_page(facts: Facts, parsed: Page) -> None:
    text = " ".join(parsed.texts)
    for step in facts.artifact.program.steps:
        assert step.name in text
    for op in facts.ops:
        row = [cell.strip() for cell in rows_of(parsed, op.op.name)]
        assert f"{op.cycles:,}" in row
        assert f"{op.simulated:,}" in row
        assert op.bound in row


def rows_of(parsed: Page, name: str) -> list[str]:
    """The row of an op in the first table that has one."""
    return next(
        row for row in parsed.cells if len(row) > 6 and re.match(rf"\s*{re.escape(name)}(\s|$)", row[1])
    )


def test_every_descriptor_is_on_the_page(facts: Facts, parsed: Page) -> None:
    comments = [row[-1] for row in parsed.cells if len(row) > 6 and row[2] in TITLES]
    assert comments == list(facts.compiled.comments)


TITLES = {"weights", "transfers", "copies", "MAC array", "LayerNorm"}


def test_figures_say_where_they_come_from(facts: Facts, parsed: Page) -> None:
    text = " ".join(" ".join(parsed.texts).split())
    assert facts.modelled is not None
    assert facts.energy is not None
    assert f"{facts.modelled.cycles:,} cycles; simulated {facts.modelled.cycles + 40:,}" in text
    assert f"90 % band {facts.energy.low:.2f} to {facts.energy.high:.2f} mJ" in text
    for sentence in (
        "off by at most",
        "misses a published design",
        "Yosys would count",
        "equals the reference",
    ):
        assert sentence in text
    assert "Nothing here was measured on a board" in text
    badges = [
        values["class"]
        for tag, values in parsed.tags
        if tag == "span" and "source" in str(values.get("class"))
    ]
    assert {"source modelled", "source simulated", "source given"} <= set(badges)


def test_charts_have_a_mark_for_everything(facts: Facts, parsed: Page) -> None:
    assert facts.explored is not None
    classes = [str(values.get("class", "")) for _, values in parsed.tags]
    assert sum(name.startswith("dot k-") for name in classes) == sum(op.macs > 0 for op in facts.ops)
    assert sum(name in ("dot onfront", "dot offfront") for name in classes) == len(facts.explored.designs)
    assert sum(name.endswith(("region", "region fine")) for name in classes) == sum(
        region.end > region.start for memory in facts.memories for region in memory.regions
    )
    bars = [values for tag, values in parsed.tags if tag == "rect" and "part" not in str(values.get("class"))]
    assert len(bars) == 2 * len(facts.program), "the timeline, modelled and simulated"


def test_tables_and_pictures_can_be_read_aloud(parsed: Page) -> None:
    for tag, values in parsed.tags:
        if tag == "svg":
            assert values.get("role") == "img"
            assert len(str(values.get("aria-label"))) > 20
        if tag == "th":
            assert values.get("scope") in ("col", "row")
    assert ("html", {"lang": "en"}) in parsed.tags


def test_the_trace_is_the_timeline(facts: Facts) -> None:
    text = trace_text(facts)
    assert text is not None
    events = json.loads(text)["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    assert len(spans) == len(facts.program)
    assert facts.modelled is not None
    last = max(event["ts"] + event["dur"] for event in spans)
    assert last == pytest.approx((facts.modelled.cycles - 1) / facts.compiled.config.clock_mhz)
    assert {event["tid"] for event in spans} == set(range(len(UNITS)))


def test_names_are_escaped(facts: Facts) -> None:
    from dataclasses import replace

    compiled = replace(facts.compiled, comments=["<script>alert(1)</script>"] * len(facts.program))
    page = render(replace(facts, compiled=compiled, missing=["<b>bold</b>"]))
    assert "<script>alert" not in page
    assert "<b>bold" not in page
    Page(page)


def test_a_mixture_shows_its_experts(mixture_facts: Facts) -> None:
    parsed = Page(render(mixture_facts))
    text = " ".join(" ".join(parsed.texts).split())
    for layer in mixture_facts.routing:
        assert " ".join(map(str, layer.tokens)) in text
    assert {"roofline", "time", "energy", "experts"} <= set(parsed.ids)
    assert "Not shown" not in text


def test_a_mixture_that_was_simulated(mixture: artifact.Artifact, mixture_simulation: Path) -> None:
    found = collect(mixture, Question(simulation=mixture_simulation))
    assert found.routing_source == "the simulated image"
    assert found.timing is not None
    assert found.energy is not None
    parsed = Page(render(found, "trace.json"))
    assert {"roofline", "time", "energy", "experts"} <= set(parsed.ids)
    for op in found.ops:
        assert f"{10 * len(op.op.main):,}" in [cell.strip() for cell in rows_of(parsed, op.op.name)]


def test_the_command_writes_both_files(
    example_folder: Path, simulation: Path, designs: Path, tmp_path: Path
) -> None:
    from tests.cli.conftest import invoke_json

    page = tmp_path / "report.html"
    found = invoke_json(
        "report", example_folder, "-o", page, "--simulation", simulation, "--explore", designs
    )
    assert found["output"] == str(page)
    assert found["trace"] == str(tmp_path / "report.trace.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.trace.json"]
    Page(page.read_text())
    json.loads((tmp_path / "report.trace.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-o", "report.txt"], "--output: expected the name of a .html file, not 'report.txt'."),
        (["-o", "/no/such/folder/r.html"], "the folder '/no/such/folder' is not there or cannot be written."),
        (["-o", "r.html", "--task", "1"], "the task must be 0: this model has one task, not 1."),
        (["-o", "r.html", "--simulation", "none.json"], "none.json: No such file or directory"),
        (["-o", "r.html", "--explore", "none.jsonl"], "none.jsonl: No such file or directory"),
    ],
)
def test_refusals(
    example_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    from tests.cli.conftest import refusal

    monkeypatch.chdir(tmp_path)
    assert sentence in refusal("report", example_folder, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def example_folder(facts: Facts) -> Path:
    return facts.artifact.path
