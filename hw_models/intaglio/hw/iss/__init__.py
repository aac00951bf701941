"""The functional simulator of accelerator programs: docs/accelerator.md, executed by NumPy."""

from intaglio.hw.iss.errors import IssError
from intaglio.hw.iss.memory import Memories
from intaglio.hw.iss.simulator import Simulator, dump_to

__all__ = ["IssError", "Memories", "Simulator", "dump_to"]
