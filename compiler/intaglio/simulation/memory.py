"""External memory of a simulated run: where program, weights, images and results lie, and its file for $readmemh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from intaglio.accelerator.descriptors import HEADER, ProgramFile

PAGE = 4096


@dataclass(frozen=True)
class MemoryMap:
    """Byte addresses in external memory; all lies in `base` to `size`, multiples of a page."""

    program: int
    weights: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    size: int
    base: int = 0


def place(program: ProgramFile, weights: int, images: int) -> MemoryMap:
    """Lay out a run over `images` images; `weights`: bytes of weights.bin."""
    position = 0

    def take(size: int) -> int:
        nonlocal position
        start, position = position, position + -(-max(size, 1) // PAGE) * PAGE
        return start

    code = take(len(program.pack()) - HEADER.size)
    constants = take(weights)
    inputs = tuple(take(program.input_bytes) for _ in range(images))
    outputs = tuple(take(program.output_bytes) for _ in range(images))
    return MemoryMap(code, constants, inputs, outputs, position)


def contents(layout: MemoryMap, program: bytes, weights: bytes, images: Sequence[bytes]) -> np.ndarray:
    """The memory before the run, uint8 [size - base]; `program`: the descriptors without their header."""
    memory = np.zeros(layout.size - layout.base, np.uint8)
    blocks = [(layout.program, program), (layout.weights, weights), *zip(layout.inputs, images, strict=True)]
    for address, data in blocks:
        start = address - layout.base
        memory[start : start + len(data)] = np.frombuffer(data, np.uint8)
    return memory


def write_hex(memory: np.ndarray, path: Path, beat: int, address: int = 0) -> None:
    """`memory` at a byte address, as lines of one beat (`beat` bytes), as $readmemh reads them."""
    path.unlink(missing_ok=True)
    words = memory.reshape(-1, beat)[:, ::-1]
    text = np.ascontiguousarray(words).tobytes().hex()
    width = 2 * beat
    lines = [f"@{address // beat:x}", *(text[i : i + width] for i in range(0, len(text), width))]
    path.write_text("\n".join(lines) + "\n")


def read_hex(path: Path, beat: int) -> bytes:
    """What $writememh wrote: beats, back to bytes in memory order."""
    lines = [line.strip() for line in path.read_text().splitlines() if line.strip() and line[0] not in "/@"]
    words = np.frombuffer(bytes.fromhex("".join(lines)), np.uint8).reshape(-1, beat)
    return words[:, ::-1].tobytes()
