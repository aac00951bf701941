"""Place and route on an ECP5 by nextpnr: how fast the design runs there, and whether it fits."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intaglio.errors import InputError, ToolError
from intaglio.synthesis.cells import ECP5, count
from intaglio.synthesis.design import Design
from intaglio.synthesis.hierarchy import Port
from intaglio.synthesis.report import RouteReport, SeedRun
from intaglio.synthesis.tools import NEXTPNR, YOSYS, Job, Tools, find, version
from intaglio.synthesis.yosys import Progress, elaborate, workplace

NARROW = "narrow_product.v"
"""Products of 9 x 8 bits out of LUTs: 18 x 18 multipliers lie in rows across the chip, far from each other."""

SPREAD = ("--router", "router2", "--placer-heap-beta", "0.6")
"""What a large design needs to route at all: the router that bargains for wires, and cells that leave room between."""

WRAPPER = "io_wrapper"
CONSTRAINTS = "pins.lpf"
CLOCKS = ("clk_i", "clk", "clock", "aclk")

_PART = re.compile(r"LFE5U-(?P<size>\d+)F-(?P<speed>[678])BG(?P<balls>\d+)")
_PHASES = (
    ("Info: Packing", "pack"),
    ("Info: Running main analytical placer", "place"),
    ("Info: Running simulated annealing", "place"),
    ("Info: Routing", "route"),
)


@dataclass(frozen=True)
class Device:
    """An ECP5 as nextpnr calls it, and the pins that its package leaves to a design."""

    size: str = "85"
    speed: str = "6"
    package: str = "CABGA381"
    pins: int = 200

    @property
    def name(self) -> str:
        return f"LFE5U-{self.size}F, speed {self.speed}, {self.package}"

    @property
    def options(self) -> list[str]:
        return [f"--{self.size}k", "--package", self.package, "--speed", self.speed]


def place_and_route(
    design: Design, out: Path, seeds: Sequence[int] = (1,), progress: Progress = lambda _: None
) -> RouteReport:
    """Flatten, synthesize, place and route `design`, once for each of `seeds`. Logs go to `out`/logs.

    A design with more port bits than the package has pins is put behind shift registers (`wrap`). A missed clock is
    a result, no error; so is a seed that fails, unless all do. Raises InputError for a board that is no ECP5,
    ToolError if a tool is missing, the design does not fit, or no seed comes to an end.
    """
    started = time.perf_counter()
    device = _device(design)
    mhz = float(design.target.accelerator.clock_mhz)
    find(NEXTPNR)
    with workplace(out, "nextpnr-ecp5", design) as (work, logs), Tools() as tools:
        progress(f"elaborate {design.top}")
        tree = elaborate(design, work, logs, tools)
        ports = tree.modules[tree.top].ports
        bits = sum(port.width for port in ports)
        hidden = bits if bits > device.pins else 0
        (work / "design.il").write_text(tree.text(), encoding="utf-8")
        (work / "wrapper.v").write_text(wrap(tree.top, ports) if hidden else "", encoding="utf-8")
        top = WRAPPER if hidden else tree.top
        progress(f"synthesize {tree.top}" + (f", {bits} port bits behind shift registers" if hidden else ""))
        shutil.copy(Path(__file__).with_name(NARROW), work / NARROW)
        tools.run(Job([find(YOSYS), "-p", _script(top)], work, logs / "synthesize.log", tree.top))
        (work / CONSTRAINTS).write_text(
            constraints(design, "clk" if hidden else _clock(ports)), encoding="utf-8"
        )
        runs = _try(tools, device, seeds, mhz, work, logs, progress)
        statistics = json.loads((work / "stat.json").read_text(encoding="utf-8"))
    resources = count(_by_type(statistics), ECP5)
    seconds = time.perf_counter() - started
    return RouteReport(
        design, f"{version(NEXTPNR)}, {version(YOSYS)}", device.name, mhz, hidden, resources, runs, seconds
    )


def constraints(design: Design, clock: str | None) -> str:
    """The pins that are fixed, in nextpnr's form: the clock's, if the board says where it arrives.

    An input placed at random may have no way to the clock network at all.
    """
    site = design.target.board.clock_pin
    if not site or clock is None:
        return ""
    return f'LOCATE COMP "{clock}" SITE "{site}";\nIOBUF PORT "{clock}" IO_TYPE=LVCMOS33;\n'


def _clock(ports: Sequence[Port]) -> str | None:
    return next((port.name for port in ports if port.way == "input" and port.name in CLOCKS), None)


def _script(top: str) -> str:
    """Yosys' commands from design.il and wrapper.v to netlist.json and stat.json. wreduce finds the narrow products."""
    narrow = f"proc; flatten; opt_expr; opt_clean; wreduce; opt_clean; techmap -map {NARROW}"
    read = f"read_rtlil design.il; read_verilog wrapper.v; hierarchy -top {top}"
    return f"{read}; {narrow}; synth_ecp5 -top {top} -json netlist.json; tee -q -o stat.json stat -json"


def wrap(top: str, ports: Sequence[Port]) -> str:
    """Verilog of a module with five pins around `top`: its inputs come from a shift register, its outputs go into one.

    Every port has a register at its other end, so that paths from and to ports count as paths of the design. The first
    input with a clock's name is the clock; inputs with another clock's name share it.
    """
    inputs = [p for p in ports if p.way == "input" and p.name not in CLOCKS]
    outputs = [p for p in ports if p.way != "input"]
    taken_in, connections = _slices(inputs, "in_q")
    taken_out, outgoing = _slices(outputs, "result")
    clocks = [f".{p.name}(clk)" for p in ports if p.way == "input" and p.name in CLOCKS]
    pins = ",\n    ".join([*clocks, *connections, *outgoing])
    width_in, width_out = max(taken_in, 1), max(taken_out, 1)
    return f"""\
module {WRAPPER} (input clk, input shift_in, input load, input update, output shift_out);
  reg [{width_in - 1}:0] shift_q, in_q;
  reg [{width_out - 1}:0] out_q;
  wire [{width_out - 1}:0] result;
  always @(posedge clk) begin
    shift_q <= {{shift_q, shift_in}};
    if (update) in_q <= shift_q;
    out_q <= load ? result : {{out_q, 1'b0}};
  end
  assign shift_out = out_q[{width_out - 1}];
  {top} dut (
    {pins}
  );
endmodule
"""


def _slices(ports: Sequence[Port], vector: str) -> tuple[int, list[str]]:
    """The bits that `ports` take of `vector`, and their connections."""
    at, connections = 0, []
    for port in ports:
        connections.append(f".{port.name}({vector}[{at + port.width - 1}:{at}])")
        at += port.width
    return at, connections


def _device(design: Design) -> Device:
    board = design.target.board
    if board.family != "ecp5":
        raise InputError(
            f"target {design.target.name!r}: flow nextpnr-ecp5 needs a board of family 'ecp5', not {board.family!r}; "
            "for example --target ulx3s."
        )
    if not board.part:
        return Device()
    found = _PART.match(board.part)
    if found is None:
        raise InputError(
            f"target {design.target.name!r}: expected a part such as LFE5U-85F-6BG381C, not {board.part!r}."
        )
    return Device(found["size"], found["speed"], f"CABGA{found['balls']}")


def _try(
    tools: Tools, device: Device, seeds: Sequence[int], mhz: float, work: Path, logs: Path, progress: Progress
) -> list[SeedRun]:
    """One run per seed. A seed that fails says why, and ends the others only if none is left."""
    runs: list[SeedRun] = []
    for seed in seeds:
        started = time.perf_counter()
        try:
            runs.append(_route(tools, device, seed, mhz, work, logs, progress))
        except ToolError as error:
            if seed == seeds[-1] and all(run.error for run in runs):
                raise
            progress(f"seed {seed}: {error}")
            runs.append(SeedRun(seed, {}, {}, "", time.perf_counter() - started, str(error)))
    return runs


def _route(
    tools: Tools, device: Device, seed: int, mhz: float, work: Path, logs: Path, progress: Progress
) -> SeedRun:
    started = time.perf_counter()
    report = f"report-{seed}.json"
    command = [
        find(NEXTPNR),
        *device.options,
        *SPREAD,
        "--json",
        "netlist.json",
        "--report",
        report,
        "--seed",
        str(seed),
        "--lpf",
        CONSTRAINTS,
    ]
    command += ["--freq", f"{mhz:g}", "--timing-allow-fail", "--lpf-allow-unconstrained"]
    job = Job(command, work, logs / f"route-{seed}.log", f"place and route (seed {seed})")
    tools.run(job, _phases(f"seed {seed}: ", progress))
    values = json.loads((work / report).read_text(encoding="utf-8"))
    return read_report(values, seed, time.perf_counter() - started)


def _phases(prefix: str, progress: Progress) -> Callable[[str], None]:
    """Tell `progress` when nextpnr enters another phase."""
    current = ""

    def on_line(line: str) -> None:
        nonlocal current
        phase = next((name for start, name in _PHASES if line.startswith(start)), current)
        if phase != current:
            current = phase
            progress(prefix + phase)

    return on_line


def read_report(values: dict[str, Any], seed: int, seconds: float) -> SeedRun:
    """What nextpnr's JSON report says."""
    fmax = {
        _plain(name): round(float(clock["achieved"]), 2) for name, clock in values.get("fmax", {}).items()
    }
    cells = {name: (int(v["used"]), int(v["available"])) for name, v in values.get("utilization", {}).items()}
    return SeedRun(seed, fmax, cells, _longest(values.get("critical_paths", [])), seconds)


def _longest(paths: list[dict[str, Any]]) -> str:
    """The slowest path within one clock: its two ends, its delay, and how much of it is wires."""
    found = [p for p in paths if p["from"] == p["to"] != "<async>" and p["path"]]
    if not found:
        return ""
    path = max((p["path"] for p in found), key=lambda steps: sum(step["delay"] for step in steps))
    delay = sum(step["delay"] for step in path)
    wires = sum(step["delay"] for step in path if step["type"] == "routing")
    first, last = path[0]["from"]["cell"], path[-1]["to"]["cell"]
    return f"{_plain(first)} -> {_plain(last)}: {delay:.1f} ns, {wires:.1f} ns of them wires"


def _plain(name: str) -> str:
    """A name without what synthesis and packing appended to it."""
    name = re.sub(
        r"^\$glbnet\$|\$TRELLIS_IO_IN$|_TRELLIS_FF_.*$|_LUT4_.*$|_CCU2C_.*$|_PFUMX_.*$|_L6MUX21_.*$", "", name
    )
    return re.sub(r"\$TRELLIS_IO_IN$", "", name)


def _by_type(statistics: dict[str, Any]) -> dict[str, int]:
    cells = statistics["design"]["num_cells_by_type"]
    return {name.removeprefix("\\"): int(number) for name, number in cells.items()}
