"""What a program that breaks the contract gets."""

from __future__ import annotations


class IssError(ValueError):
    """A program, or what it is run with, breaks docs/accelerator.md; the message is one sentence."""


class FaultError(Exception):
    """What a descriptor does wrong, before the executor adds which one: it becomes an IssError."""


def blame(index: int, kind: str, what: object) -> IssError:
    """The error of descriptor `index`."""
    return IssError(f"descriptor {index} ({kind}): {what}")
