"""Runs in the simulator, for test_host_rtl: the generated driver, and a mixture of experts for two tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cocotb
import numpy as np
from cocotb.task import bridge
from cocotb_host import DRIVER, FOLDER, IMAGES, LOGITS, _open

OTHER = np.load(FOLDER / "logits1.npy")
"""The reference's for task 1; LOGITS are those of task 0."""

_test = cocotb.test(timeout_time=40, timeout_unit="ms")


@_test
async def tasks(_: Any) -> None:
    """Task after task on the same image, and back again."""
    accelerator = await _open(interrupt=True)
    assert accelerator.program.tasks == 2
    assert not np.array_equal(LOGITS[:1], OTHER[:1])
    for task, logits in ((1, OTHER), (0, LOGITS), (1, OTHER)):
        assert np.array_equal(await bridge(accelerator.run)(IMAGES[:1], task), logits[:1])
        counters = await bridge(accelerator.counters)()
        # Of two mixtures of eight experts, the first routes all tokens, the second two.
        assert 2 < counters["experts"] <= 12
        assert 0 < counters["combine"] < counters["cycles"]


@_test
async def no_such_task(_: Any) -> None:
    """What the driver would let through stops the accelerator with error 9; the next run is exact."""
    accelerator = await _open(interrupt=True)
    accelerator.program = replace(accelerator.program, tasks=3)
    found = ""
    try:
        await bridge(accelerator.run)(IMAGES[:1], 2)
    except DRIVER.RunError as error:
        found = str(error)
    assert found.startswith(
        "the accelerator stopped with error 9, the task register exceeds the program's tasks, at"
    )
    assert np.array_equal(await bridge(accelerator.run)(IMAGES[:1], 1), OTHER[:1])
