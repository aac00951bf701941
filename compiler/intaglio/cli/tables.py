"""How the commands lay out what they found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from intaglio.inspection import Summary


def table(title: str, columns: Mapping[str, str], rows: Iterable[Iterable[Any]]) -> Table:
    """A table; `columns` maps headings to `left` or `right`."""
    result = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for heading, justify in columns.items():
        result.add_column(heading, justify="right" if justify == "right" else "left", overflow="fold")
    for row in rows:
        result.add_row(*(Text(str(cell)) for cell in row))
    return result


def facts(pairs: Mapping[str, Any]) -> Table:
    """Names and values, one pair a line."""
    result = Table(box=None, show_header=False, pad_edge=False)
    result.add_column(style="bold")
    result.add_column(overflow="fold")
    for name, value in pairs.items():
        result.add_row(name, Text(str(value)))
    return result


def count(value: float) -> str:
    """A large number with its SI prefix: 1.25 G."""
    for divisor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= divisor:
            return f"{value / divisor:.3g}{unit}"
    return f"{value:g}"


def percent(share: float | None) -> str:
    """A share of one in percent; a dash for what was not measured."""
    return "-" if share is None else f"{100 * share:.2f} %"


def total(summary: Summary) -> str:
    """The work of a program in one line."""
    return (
        f"{len(summary.ops)} integer ops, {summary.float_ops} float ops, {count(summary.macs)}MAC, "
        f"{count(summary.weight_bytes)}B of constants"
    )
