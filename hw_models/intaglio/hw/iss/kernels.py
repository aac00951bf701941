"""One function per kind of descriptor: reads memories, returns the writes of steps low .. high - 1."""

from __future__ import annotations

from collections.abc import Callable

from intaglio.accelerator.descriptors import Descriptor
from intaglio.hw.iss import matrix, router, transfer, vector
from intaglio.hw.iss.machine import Machine
from intaglio.hw.iss.memory import Write

Kernel = Callable[[Machine, int, Descriptor, int, int], list[Write]]

KERNELS: dict[str, Kernel] = {
    "LOAD_WEIGHTS": transfer.load_weights,
    "LOAD_PARAMS": transfer.load_params,
    "LOAD_NORM": transfer.load_norm,
    "LOAD_TABLE": transfer.load_table,
    "LOAD_ROWS": transfer.load_rows,
    "LOAD_IMAGE": transfer.load_image,
    "STORE": transfer.store,
    "COPY_KV": transfer.copy_kv,
    "ROUTE": router.route,
    "MOVE_ROWS": router.move_rows,
    "GEMM": matrix.gemm,
    "ATTENTION": matrix.attention,
    "COMBINE": matrix.combine,
    "LAYERNORM": vector.layernorm,
}
