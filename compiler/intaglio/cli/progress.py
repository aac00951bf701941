"""Progress of long work, on standard error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

Step = Callable[[str], None]


@contextlib.contextmanager
def steps(title: str) -> Iterator[Step]:
    """Show the step that is under way: a spinner in a terminal, a line each in a log."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda message: console.print(f"{title}: {message}", markup=False, soft_wrap=True)
        return
    with console.status(title) as status:
        yield lambda message: status.update(f"{title}: {message}")


@contextlib.contextmanager
def bars(total: int) -> Iterator[Callable[[str, int], None]]:
    """Show how far each named part is of `total` items; in a log, say when one begins."""
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks: dict[str, TaskID] = {}

        def advance(part: str, done: int) -> None:
            if part not in tasks:
                tasks[part] = progress.add_task(part, total=total)
                if not console.is_terminal:
                    console.print(f"{part}: {total} items", markup=False, soft_wrap=True)
            progress.update(tasks[part], completed=done)

        yield advance
