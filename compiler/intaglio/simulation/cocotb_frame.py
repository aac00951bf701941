"""The cocotb side of `frame.simulate`: run the images of every program of a job list, one after another."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cocotb

from intaglio.simulation.cocotb_bench import Bench, open_bench


@cocotb.test()
async def frames(dut: Any) -> None:
    """Run the jobs in $INTAGLIO_JOB and write what happened to `report`, the outputs to each job's `dump`."""
    description = json.loads(Path(os.environ["INTAGLIO_JOB"]).read_text())
    bench = await open_bench()
    dut.stall_rate.value = description["stall_rate"]
    jobs = [await _job(bench, job, description) for job in description["jobs"]]
    Path(description["report"]).write_text(json.dumps({"jobs": jobs}))


async def _job(bench: Bench, job: dict[str, Any], common: dict[str, Any]) -> list[dict[str, Any]]:
    await bench.memory.load(Path(job["memory"]))
    await bench.setup(job["program"], job["count"], job["weights"], common["watchdog"], job["task"])
    runs = []
    for image, output in zip(job["inputs"], job["outputs"], strict=True):
        outcome = await bench.run(image, output, common["limit"])
        runs.append(asdict(outcome))
        if outcome.status:
            await bench.reset()
            break
    await bench.memory.read(job["dump_from"], job["dump_bytes"])
    shutil.move(bench.folder / "dump.hex", job["dump"])
    return runs
