"""Time of the functional simulator per image: `python benchmarks/iss.py MODEL.onnx [--config large]`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from intaglio.backends import fpga
from intaglio.compiler import Options, to_program
from intaglio.hw.iss import Simulator
from intaglio.ops import reference
from intaglio.samples import random_inputs
from intaglio.target import configuration


def main() -> None:
    """Print the median CPU seconds of 5 images, after one that unpacks the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--config", default="large")
    options = parser.parse_args()
    program = to_program(options.model, Options())
    compiled = fpga.compile_program(program, configuration(options.config))
    simulator = Simulator(compiled.config, compiled.program, compiled.weights)
    images = random_inputs(program.tensors[program.input], 6)
    seconds = []
    for image in images:
        started = time.process_time()
        result = simulator.run(image.tobytes())
        seconds.append(time.process_time() - started)
        found = fpga.result(program.tensors[program.output], result)
        assert np.array_equal(found, reference.run(program, image[None])), "differs from the reference"
    print(f"{np.median(seconds[1:]):.3f} s of CPU per image, median of 5, bit-exact")


if __name__ == "__main__":
    main()
