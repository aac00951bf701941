"""The accelerator as C++ for high-level synthesis: configuration in, {path: text} out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from intaglio.accelerator import descriptors, registers
from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import COMMON, KINDS, UNITS, Field
from intaglio.accelerator.sizes import sizes
from intaglio.backends.fpga.templates import banner, environment

TOP = "intaglio_accelerator"
FOLDER = "hls"
HEADERS = (
    "platform.hpp", "platform_vitis.hpp", "platform_bambu.hpp", "config.hpp", "descriptors.hpp", "arithmetic.hpp",
    "memories.hpp", "units.hpp", "sequencer.hpp", "accelerator.hpp",
)  # fmt: skip
SOURCES = (
    "memories.cpp", "load.cpp", "router.cpp", "mac_array.cpp", "post_process.cpp", "attention.cpp", "combine.cpp",
    "layernorm.cpp", "check.cpp", "sequencer.cpp", "accelerator.cpp",
)  # fmt: skip
"""What is synthesized, with a router."""
ROUTER_SOURCES = ("router.cpp", "combine.cpp")
"""What only a configuration with experts has."""
TEST_BENCH = "csim_main.cpp"

_ERROR_NAMES = (
    "NONE", "OPCODE", "VERSION", "CHECKSUM", "ORDER", "ADDRESS", "READ", "WRITE", "WATCHDOG", "TASK",
)  # fmt: skip
_TABLES = ("activation", "exponential", "pixel", "router")
_SELECTORS = (
    ("queue", "Number of the queue, from 1, that `d` depends on; 0: none."),
    ("tasks", "How many tasks `d` tells apart; 0: it is the same for every task."),
    ("select", "What a task adds to the offset of `d`, in blocks."),
)


@dataclass(frozen=True)
class Macro:
    """A pragma as the sources spell it, and as the tools do ("" where a tool has no such pragma)."""

    signature: str
    doc: str
    vitis: str
    bambu: str = ""


MACROS = (
    Macro("HLS_PIPELINE", "in a loop or function: starts every cycle, unrolls loops inside",
          "pipeline II=1"),
    Macro("HLS_UNROLL", "before a loop inside what is pipelined", "", "unroll"),
    Macro("HLS_INLINE", "in a function: part of its caller", "inline"),
    Macro("HLS_INLINE_OFF", "in a function: hardware of its own", "inline off", "inline off"),
    Macro("HLS_ONE_INSTANCE(name)", "a function that all callers share",
          "allocation function instances=name limit=1"),
    Macro("HLS_DATAFLOW", "in a function: the calls run concurrently", "dataflow", "dataflow"),
    Macro("HLS_UNSYNCHRONIZED(name)", "shared by concurrent processes, as plain RAM",
          "stream variable=name type=unsync"),
    Macro("HLS_INDEPENDENT(name)", "iterations of the loop do not meet in it", "dependence variable=name inter false"),
    Macro("HLS_PARTITION(name, at)", "a memory per index of dimension at (0: registers)",
          "array_partition variable=name complete dim=at"),
    Macro("HLS_CYCLIC(name, by, at)", "neighbours in dimension at in different memories",
          "array_partition variable=name cyclic factor=by dim=at"),
    Macro("HLS_RESHAPE(name, at)", "one word for all of dimension at", "array_reshape variable=name complete dim=at"),
    Macro("HLS_MEMORY_PORT(name, group, beats, bursts)", "pointer to external memory",
          "interface m_axi port=name bundle=group offset=slave max_read_burst_length=beats "
          "max_write_burst_length=beats num_read_outstanding=bursts num_write_outstanding=bursts",
          "interface port=name mode=m_axi offset=direct bundle=group"),
    Macro("HLS_REGISTER(name)", "argument or result in a register of the host", "interface s_axilite port=name"),
)  # fmt: skip


@dataclass(frozen=True)
class _Tool:
    title: str
    notes: tuple[str, ...]


_TOOLS = {
    "vitis": _Tool("AMD Vitis HLS", ("What is pipelined unrolls the loops inside: none needs its own pragma.",)),
    "bambu": _Tool("PandA Bambu", (
        "`unroll` stands before its loop, a `pipeline` of a loop is an error, memories are not partitioned.",
        "Bambu builds what this gives and is no match for the RTL: it serves as a free second reader of the code.",
    )),
}  # fmt: skip


@dataclass(frozen=True)
class _Function:
    """One field of a descriptor, as the C++ function that extracts it."""

    name: str
    type: str
    value: str


@dataclass(frozen=True)
class _Group:
    """The fields of one kind of descriptor."""

    namespace: str
    functions: tuple[_Function, ...]


def sources(config: AcceleratorConfig) -> list[str]:
    """Names of what is synthesized."""
    return [name for name in SOURCES if config.experts or name not in ROUTER_SOURCES]


def emit(config: AcceleratorConfig) -> dict[str, str]:
    """The C++ sources of the accelerator, its C simulation and their Makefile, in `hls/`."""
    values = _values(config)
    names = [
        name for name in (*HEADERS, *sources(config), TEST_BENCH, "Makefile") if name not in _tool_headers()
    ]
    files = {f"{FOLDER}/{name}": _render(f"{name}.j2", **values) for name in names}
    for tool, text in _TOOLS.items():
        macros = [{"signature": macro.signature, "pragma": getattr(macro, tool)} for macro in MACROS]
        files[f"{FOLDER}/platform_{tool}.hpp"] = _render(
            "platform_tool.hpp.j2", banner=values["banner"], tool=text, macros=macros
        )
    return files


def _tool_headers() -> list[str]:
    return [f"platform_{tool}.hpp" for tool in _TOOLS]


def _render(template: str, **values: Any) -> str:
    return environment().get_template(f"{FOLDER}/{template}").render(values)


def _values(config: AcceleratorConfig) -> dict[str, Any]:
    return {
        "banner": banner(config),
        "config_hash": config.hash,
        "sizes": sizes(config),
        "ports": range(config.weight_ports),
        "port_parameters": _port_lines("const beat_t *weights_{}", config.weight_ports),
        "port_arguments": _port_lines("weights_{}", config.weight_ports),
        "magic": descriptors.MAGIC.decode(),
        "version": descriptors.FORMAT_VERSION,
        "words": descriptors.WORDS,
        "offset_word": _offset_word(),
        "units": UNITS,
        "kinds": KINDS,
        "tables": list(enumerate(_TABLES)),
        "groups": _groups(),
        "selectors": [
            (name, doc, [kind for kind in KINDS if any(entry.name == name for entry in kind.fields)])
            for name, doc in _SELECTORS
        ],
        "errors": [
            (f"ERR_{name}", code, sentence)
            for name, (code, sentence) in zip(_ERROR_NAMES, registers.ERRORS.items(), strict=True)
        ],
        "macros": MACROS,
        "sources": sources(config),
        "config": config,
    }


def _port_lines(form: str, ports: int) -> list[str]:
    """`form` of every weight port, joined by commas in lines of four."""
    names = [form.format(port) for port in range(ports)]
    lines = [", ".join(names[first : first + 4]) for first in range(0, ports, 4)]
    return [f"{line}," for line in lines[:-1]] + lines[-1:]


def _offset_word() -> int:
    """Where loads have their offset: all in the same place."""
    (word,) = {entry.word for kind in KINDS for entry in kind.fields if entry.name == "offset"}
    return word


def _groups() -> list[_Group]:
    common = _Group("desc", tuple(_function(entry) for entry in COMMON))
    kinds = (
        _Group(f"desc_{kind.name.lower()}", tuple(_function(entry) for entry in kind.fields))
        for kind in KINDS
    )
    return [common, *kinds]


def _function(entry: Field) -> _Function:
    """Values come as 32 bits (64-bit fields as 64, flags as bool), so that sums of fields do not overflow."""
    word = f"d.word[{entry.word}]"
    if entry.width > 32:
        value = f"{word} | uint64_t(d.word[{entry.word + 1}]) << 32"
        return _Function(
            entry.name, *(("int64_t", f"int64_t({value})") if entry.signed else ("uint64_t", value))
        )
    if entry.width == 1:
        return _Function(entry.name, "bool", f"{_shift(word, '>>', entry.lsb)} & 1")
    if entry.signed:
        # Sign extension by an arithmetic shift from the top of the word.
        left, right = 32 - entry.width - entry.lsb, 32 - entry.width
        value = f"int32_t({_shift(word, '<<', left)})"
        return _Function(entry.name, "int32_t", _shift(value, ">>", right))
    mask = f" & {(1 << entry.width) - 1:#x}" if entry.width + entry.lsb < 32 else ""
    return _Function(entry.name, "uint32_t", _shift(word, ">>", entry.lsb) + mask)


def _shift(value: str, operator: str, by: int) -> str:
    return f"{value} {operator} {by}" if by else value
