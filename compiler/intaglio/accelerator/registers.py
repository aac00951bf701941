"""The register map that the host sees (AXI4-Lite, 32-bit registers), in one table for RTL, drivers and tests."""

from __future__ import annotations

MAGIC = 0x494E5447

REGISTERS: dict[str, tuple[int, str, str]] = {
    "CONTROL": (0x00, "rw", "bit 0: start (reads 0); bit 1: soft reset (reads 0); bit 2: interrupt enable"),
    "STATUS": (0x04, "r", "bit 0: busy; bit 1: done; bit 2: error; bits 15:8: error code"),
    "ERROR_INFO": (0x08, "r", "index of the descriptor last dispatched when the error came"),
    "INTERRUPT": (0x0C, "rw1c", "bit 0: interrupt pending; write 1 to clear"),
    "MAGIC": (0x10, "r", "0x494E5447"),
    "VERSION": (0x14, "r", "program format version"),
    "CONFIG": (0x18, "r", "configuration hash, as in program.bin"),
    "WATCHDOG": (0x1C, "rw", "cycles without progress of any unit after which the run is stopped; 0: never"),
    "PROGRAM_LO": (0x20, "rw", "byte address of the first descriptor, aligned to 128"),
    "PROGRAM_HI": (0x24, "rw", ""),
    "PROGRAM_COUNT": (0x28, "rw", "descriptors"),
    "TASK": (0x2C, "rw", "task, from 0: chooses among the weights of descriptors that have several"),
    "WEIGHTS_LO": (0x30, "rw", "byte address of weights.bin, aligned to 4096"),
    "WEIGHTS_HI": (0x34, "rw", ""),
    "INPUT_LO": (0x38, "rw", "byte address of one image, aligned to 64"),
    "INPUT_HI": (0x3C, "rw", ""),
    "OUTPUT_LO": (0x40, "rw", "byte address of one result, aligned to 64"),
    "OUTPUT_HI": (0x44, "rw", ""),
}

ERRORS: dict[int, str] = {
    0: "none",
    1: "illegal descriptor: unknown opcode",
    2: "descriptor of another format version",
    3: "descriptor checksum wrong",
    4: "descriptor out of order",
    5: "descriptor addresses memory that the configuration does not have",
    6: "external memory answered a read with an error",
    7: "external memory answered a write with an error",
    8: "watchdog: no progress",
    9: "the task register exceeds the program's tasks",
}

COUNTER_BASE = 0x100
COUNTERS: tuple[str, ...] = (
    "cycles",  # while busy
    "mac_steps",  # cycles in which the array was issued a step
    "stall_dm",  # MAC unit waited for weights
    "stall_io",  # ... for parameters, image, constants
    "stall_cp",  # ... for keys or values
    "stall_mm",  # ... for its own results
    "stall_vu",  # ... for LayerNorm
    "stall_softmax",  # ... for the softmax unit
    "stall_drain",  # ... for room in the accumulator FIFO
    "idle_mm",  # MAC unit had no descriptor
    "gemm",  # cycles by kind of descriptor: a row tile of it was being issued
    "attention",
    "combine",
    "load_params",  # ... it was at the head of its unit's queue
    "load_norm",
    "load_table",
    "load_rows",
    "load_image",
    "store",
    "busy_dm",  # LOAD_WEIGHTS
    "busy_io",
    "busy_cp",  # COPY_KV, ROUTE, MOVE_ROWS
    "busy_vu",  # LAYERNORM
    "read_beats_dm",
    "read_beats_io",
    "write_beats_io",
    "experts",  # queues that a ROUTE left not empty, summed over ROUTEs
)
"""32-bit performance counters at ``COUNTER_BASE + 4 * i``, cleared at start."""
