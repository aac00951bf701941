"""Where the tokens of an image go in a model's mixtures of experts, by the functional simulator of its accelerator."""

from __future__ import annotations

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.backends import fpga
from intaglio.hw.cycles.routing import Routings
from intaglio.program import Array, Program
from intaglio.routing import routed


def recorded(program: Program, config: AcceleratorConfig, image: Array, task: int = 0) -> Routings:
    """Of every mixture, how many tokens of `image` [1, ...] (the program's input type) choose each expert.

    Raises InputError if there is no such task, UnsupportedError if the program does not fit the configuration.
    """
    program.check_task(task)
    compiled = fpga.compile_program(program, config)
    (found,) = routed(compiled, [image[0].tobytes()], task)
    return [routing.tokens for routing in found]
