"""What every command shares: its result, its errors, and a clean standard output."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ParamSpec

import typer
from rich.console import Console, RenderableType

from intaglio.cli import INTERRUPTED
from intaglio.errors import IntaglioError

P = ParamSpec("P")

CRASHED = 1

LOG_WIDTH = 160
"""Columns of a table that goes to a file or a pipe."""


@dataclass(frozen=True)
class Result:
    """What a command found out: `values` for `--json`, `view` for people, `exit_code` for scripts."""

    values: dict[str, Any]
    view: list[RenderableType] = field(default_factory=list)
    exit_code: int = 0


def command(function: Callable[P, Result]) -> Callable[P, None]:
    """Make a command of a function that returns its result and prints nothing.

    Expects the parameters `as_json` and `debug`. While the function runs, standard output goes to standard error,
    whoever writes to it; afterwards it gets the result and nothing else.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with _errors(debug=bool(kwargs.get("debug"))):
            with _stdout_to_stderr():
                result = function(*args, **kwargs)
            _print(result, as_json=bool(kwargs.get("as_json")))
            sys.stdout.flush()  # a full disk is an error here, not silence at the end
        if result.exit_code:
            raise typer.Exit(result.exit_code)

    return run


def _print(result: Result, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(result.values, allow_nan=False))
        return
    console = Console()
    if not console.is_terminal:
        console.width = LOG_WIDTH
    for part in result.view:
        console.print(part)


@contextlib.contextmanager
def _errors(*, debug: bool) -> Iterator[None]:
    """Turn exceptions into one sentence on standard error and an exit code."""
    try:
        yield
    except (typer.Exit, typer.Abort, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        _fail("interrupted", INTERRUPTED, debug=debug)
    except IntaglioError as error:
        _fail(f"error: {error}", error.exit_code, debug=debug)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"error: {where}{error.strerror or error}", IntaglioError.exit_code, debug=debug)
    except MemoryError:
        _fail("error: there is not enough memory for this model.", IntaglioError.exit_code, debug=debug)
    except Exception as error:
        kind = type(error).__name__
        message = (str(error).strip() or "no message").splitlines()[0]
        hint = "please report it with the output of the same command and --debug."
        _fail(f"error: this is a defect of intaglio ({kind}: {message}); {hint}", CRASHED, debug=debug)


def _fail(sentence: str, exit_code: int, *, debug: bool) -> None:
    if debug:
        traceback.print_exc(file=sys.stderr)
    print(sentence, file=sys.stderr)
    raise typer.Exit(exit_code)


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Send what Python and native libraries print to standard error."""
    with contextlib.redirect_stdout(sys.stderr), _descriptor_1_to_2():
        yield


@contextlib.contextmanager
def _descriptor_1_to_2() -> Iterator[None]:
    try:
        if sys.stdout is None or sys.__stdout__ is None or sys.__stdout__.fileno() != 1:
            raise OSError
        sys.__stdout__.flush()
        saved = os.dup(1)
    except (OSError, ValueError):  # no such descriptor: nothing to protect
        yield
        return
    os.dup2(2, 1)
    try:
        yield
    finally:
        # Native code may still hold text in its own buffer.
        ctypes.CDLL(None).fflush(None)
        os.dup2(saved, 1)
        os.close(saved)
