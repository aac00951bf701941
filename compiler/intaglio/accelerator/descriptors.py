"""The program format: fixed-size descriptors, the one table of their fields, and encoding both ways.

Every rendering of the accelerator (RTL package, HLS header, simulator, disassembler) takes field positions from here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

FORMAT_VERSION = 1
WORDS = 32
BYTES = 4 * WORDS
MAGIC = b"ITGP"
HEADER = struct.Struct("<4sHHIIIIIII")
"""magic, format version, header bytes, configuration hash, descriptors, bytes of input, output (spill area included)
and weights, tasks, bytes of the spill area (the last ones of the output: no result)."""

UNITS = ("dm", "io", "cp", "mm", "vu")
"""Units in the order of their progress counters and wait words: weights, other transfers, copies, MAC, vector."""


@dataclass(frozen=True)
class Field:
    """Bits ``[lsb + width - 1 : lsb]`` of word `word`; a 64-bit field continues in the next word."""

    name: str
    word: int
    lsb: int = 0
    width: int = 32
    signed: bool = False
    doc: str = ""

    @property
    def limits(self) -> tuple[int, int]:
        if self.signed:
            return -(1 << (self.width - 1)), (1 << (self.width - 1)) - 1
        return 0, (1 << self.width) - 1


@dataclass(frozen=True)
class Kind:
    """One kind of descriptor: its opcode, the unit that executes it, and its fields from word 8 on."""

    name: str
    opcode: int
    unit: str
    doc: str
    fields: tuple[Field, ...]


COMMON = (
    Field("opcode", 0, 0, 8),
    Field("version", 0, 8, 8),
    Field("index", 0, 16, 16, doc="position in the program, modulo 2^16"),
    *(
        part
        for number, unit in enumerate(UNITS, 1)
        for part in (
            Field(f"wait_{unit}", number, 0, 24, doc=f"progress of {unit} that must be reached"),
            Field(f"step_{unit}", number, 24, 8, doc="added per row tile, or per head (ATTENTION)"),
        )
    ),
    Field("checksum", 31, doc="complement of the sum of words 0..30 modulo 2^32"),
)

_QUEUE = Field("queue", 6, 0, 8, doc="1 + expert: only if its queue is not empty; 0: always")
_TASK = (
    Field("select", 7, 0, 24, doc="added to offset per task, in units of 64 bytes"),
    Field("tasks", 7, 24, 8, doc="number of tasks; 0: the same for every task"),
)

KINDS: tuple[Kind, ...] = (
    Kind("LOAD_WEIGHTS", 0x01, "dm", "external memory -> weight buffer, on all weight ports", (
        _QUEUE, *_TASK,
        Field("offset", 8, doc="bytes from the weights base"),
        Field("entry", 9, 0, 16), Field("entries", 9, 16, 16),
    )),
    Kind("LOAD_PARAMS", 0x10, "io", "bias, multiplier, shift per channel -> parameter buffer", (
        _QUEUE, *_TASK,
        Field("offset", 8), Field("group", 9, 0, 16), Field("groups", 9, 16, 16),
    )),
    Kind("LOAD_NORM", 0x11, "io", "gain and offset per channel -> LayerNorm buffer", (
        Field("offset", 8), Field("channel", 9, 0, 16), Field("channels", 9, 16, 16),
    )),
    Kind("LOAD_TABLE", 0x12, "io", "256 entries of 16 bits -> one slot of a table memory", (
        _QUEUE,
        Field("offset", 8), Field("slot", 9, 0, 8),
        Field("table", 9, 8, 8, doc="0 activation, 1 exponential, 2 pixel (slot: channel), 3 router (slots 0, 1)"),
    )),
    Kind("LOAD_ROWS", 0x13, "io", "constant or spilled words -> scratchpad", (
        Field("offset", 8), Field("addr", 9, 0, 16), Field("words", 9, 16, 16), Field("bank", 10, 0, 1, doc="0 A, 1 X"),
        Field("spilled", 10, 1, 1, doc="offset is from the output base: what STORE with all_rows left there"),
    )),
    Kind("LOAD_IMAGE", 0x14, "io", "input image -> patches in bank A", (
        Field("channels", 8, 0, 8), Field("patch_h", 8, 8, 8), Field("patch_w", 8, 16, 8),
        Field("piece", 8, 24, 8, doc="bytes moved at a time: a power of two that divides patch_w, at most depth"),
        Field("grid_h", 9, 0, 16), Field("grid_w", 9, 16, 16),
        Field("addr", 10, 0, 16), Field("stride", 10, 16, 16),
    )),
    Kind("STORE", 0x15, "io", "one row, or all rows, of consecutive words -> output", (
        Field("offset", 8, doc="bytes from the output base"),
        Field("addr", 9, 0, 16), Field("words", 9, 16, 16),
        Field("bank", 10, 0, 1), Field("all_rows", 10, 1, 1, doc="whole words, as LOAD_ROWS reads them; row is 0"),
        Field("row", 10, 8, 8),
    )),
    Kind("COPY_KV", 0x20, "cp", "keys or values of one head, bank A -> weight buffer", (
        Field("addr", 8, 0, 16), Field("stride", 8, 16, 16),
        Field("entry", 9, 0, 16), Field("chunks", 9, 16, 8, doc="words per row tile: head dimension / depth"),
        Field("values", 9, 24, 1, doc="0 keys, 1 values"),
        Field("rows", 10, 0, 16, doc="tokens"),
    )),
    Kind("ROUTE", 0x21, "cp", "gate logits in bank A -> the k experts of every token, expert queues", (
        Field("addr", 8, 0, 16), Field("stride", 8, 16, 16),
        Field("rows", 9, 0, 16, doc="tokens"),
        Field("experts", 9, 16, 8), Field("k", 9, 24, 3, doc="experts per token, 1 .. 4"),
        Field("wide", 9, 27, 1, doc="logits are int16"),
        Field("normalize", 9, 28, 1, doc="weights are relative to the k chosen experts, not to all"),
    )),
    Kind("MOVE_ROWS", 0x22, "cp", "rows of the tokens in an expert's queue, bank A -> bank A", (
        _QUEUE,
        Field("s_addr", 8, 0, 16), Field("s_stride", 8, 16, 16),
        Field("o_addr", 9, 0, 16), Field("o_stride", 9, 16, 16),
        Field("rows", 10, 0, 16, doc="tokens: the largest length of a queue"),
        Field("chunks", 10, 16, 8, doc="words per row tile"),
        Field("scatter", 10, 24, 1, doc="0 gather: token -> place in the queue; 1 scatter: place -> token, slot"),
        Field("slot_stride", 11, 0, 16, doc="scatter: from the result of slot s to that of s + 1"),
        Field("k", 11, 16, 3, doc="scatter: slots, as ROUTE's"),
    )),
    Kind("GEMM", 0x30, "mm", "matrix product, requantize, table, residual", (
        _QUEUE,
        Field("a_addr", 8, 0, 16), Field("a_stride", 8, 16, 16),
        Field("entry", 9, 0, 16), Field("k_steps", 9, 16, 16),
        Field("group", 10, 0, 16, doc="first parameter group"), Field("groups", 10, 16, 16),
        Field("o_addr", 11, 0, 16), Field("o_stride", 11, 16, 16),
        Field("r_addr", 12, 0, 16), Field("r_stride", 12, 16, 16),
        Field("rows", 13, 0, 16), Field("zero", 13, 16, 16, True),
        Field("wide", 14, 0, 1, doc="requantize to int16"), Field("table", 14, 1, 1), Field("slot", 14, 2, 3),
        Field("residual", 14, 5, 1), Field("r_wide", 14, 6, 1), Field("o_wide", 14, 7, 1),
        Field("o_bank", 14, 8, 1, doc="0 A, 1 X"),
        Field("add_a", 15, 0, 32, True), Field("add_b", 16, 0, 32, True), Field("add_offset", 17, 0, 64, True),
        Field("add_shift", 19, 0, 6), Field("add_zero", 19, 16, 16, True),
    )),
    Kind("ATTENTION", 0x31, "mm", "softmax(q k^T) v of all heads", (
        Field("q_addr", 8, 0, 16), Field("q_stride", 8, 16, 16),
        Field("o_addr", 9, 0, 16), Field("o_stride", 9, 16, 16),
        Field("heads", 10, 0, 8), Field("qk_steps", 10, 8, 8, doc="words per head of q and k"),
        Field("keys", 10, 16, 16),
        Field("rows", 11, 0, 16, doc="queries"), Field("v_words", 11, 16, 8, doc="words per head of v and the result"),
        Field("slot", 11, 24, 3, doc="exponential table"),
        Field("entry", 12, 0, 16, doc="K of even heads"), Field("entry_step", 12, 16, 16, doc="to K of odd heads"),
        Field("v_entry", 13, 0, 16, doc="from K to V of a head"),
        Field("score_multiplier", 14), Field("score_shift", 15, 0, 6), Field("score_zero", 15, 16, 16, True),
        Field("multiplier", 16), Field("shift", 17, 0, 6), Field("zero", 17, 16, 16, True),
        Field("q_zero", 18, 0, 16, True), Field("k_zero", 18, 16, 16, True), Field("v_zero", 19, 0, 16, True),
        Field("score_bias", 20, 0, 32, True, doc="qk_steps * depth * q_zero * k_zero"),
    )),
    Kind("COMBINE", 0x32, "mm", "sum of a token's expert results by gate weight, requantize, residual", (
        Field("a_addr", 8, 0, 16), Field("a_stride", 8, 16, 16),
        Field("slot_stride", 9, 0, 16), Field("k", 9, 16, 3, doc="slots: as ROUTE's"),
        Field("groups", 10, 16, 16),
        Field("o_addr", 11, 0, 16), Field("o_stride", 11, 16, 16),
        Field("r_addr", 12, 0, 16), Field("r_stride", 12, 16, 16),
        Field("rows", 13, 0, 16), Field("zero", 13, 16, 16, True),
        Field("wide", 14, 0, 1, doc="requantize to int16"),
        Field("residual", 14, 5, 1), Field("r_wide", 14, 6, 1), Field("o_wide", 14, 7, 1),
        Field("o_bank", 14, 8, 1, doc="0 A, 1 X"),
        Field("add_a", 15, 0, 32, True), Field("add_b", 16, 0, 32, True), Field("add_offset", 17, 0, 64, True),
        Field("add_shift", 19, 0, 6), Field("add_zero", 19, 16, 16, True),
        Field("multiplier", 20), Field("shift", 21, 0, 6), Field("y_zero", 21, 16, 16, True),
    )),
    Kind("LAYERNORM", 0x40, "vu", "LayerNorm, bank X -> int8 in bank A", (
        Field("x_addr", 8, 0, 16), Field("x_stride", 8, 16, 16),
        Field("o_addr", 9, 0, 16), Field("o_stride", 9, 16, 16),
        Field("channels", 10, 0, 16), Field("rows", 10, 16, 16),
        Field("channel", 11, 0, 16, doc="first channel in the LayerNorm buffer"), Field("x_wide", 11, 16, 1),
        Field("eps", 12, 0, 64), Field("shift", 14, 0, 6), Field("zero", 14, 16, 16, True),
    )),
)  # fmt: skip

ROUTED = ("ROUTE", "MOVE_ROWS", "COMBINE")
"""Kinds that only a configuration with experts has."""

BY_NAME: Mapping[str, Kind] = {kind.name: kind for kind in KINDS}
BY_OPCODE: Mapping[int, Kind] = {kind.opcode: kind for kind in KINDS}


def unit_words(unit: str, routed: bool) -> int:
    """Words of a descriptor, from the first, that reach `unit`: to the last that its kinds have a field in.

    `routed`: whether the configuration has experts. Whatever the kind, the waits end in word 5.
    """
    kinds = [kind for kind in KINDS if kind.unit == unit and (routed or kind.name not in ROUTED)]
    ends = [entry.word + (entry.width + 31) // 32 for kind in kinds for entry in kind.fields]
    return max(1 + len(UNITS), *ends)


@dataclass(frozen=True)
class Descriptor:
    """One instruction: kind, fields by name (absent ones are 0), waits by unit as (base, step)."""

    kind: str
    fields: Mapping[str, int]
    waits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    comment: str = field(default="", compare=False)

    def __getitem__(self, name: str) -> int:
        return self.fields.get(name, 0)


def encode(descriptor: Descriptor, index: int) -> bytes:
    """The 128 bytes of one descriptor. Raises ValueError naming a field that is unknown or does not fit."""
    kind = BY_NAME[descriptor.kind]
    words = [0] * (WORDS + 1)
    known = {entry.name for entry in kind.fields}
    unknown = set(descriptor.fields) - known
    if unknown:
        raise ValueError(f"{kind.name}: unknown field {min(unknown)!r}.")
    values = {"opcode": kind.opcode, "version": FORMAT_VERSION, "index": index & 0xFFFF, **descriptor.fields}
    for unit, (base, step) in descriptor.waits.items():
        values |= {f"wait_{unit}": base, f"step_{unit}": step}
    for entry in (*COMMON, *kind.fields):
        _put(words, kind, entry, values.get(entry.name, 0))
    words[WORDS - 1] = checksum(words[: WORDS - 1])
    return struct.pack(f"<{WORDS}I", *words[:WORDS])


def _put(words: list[int], kind: Kind, entry: Field, value: int) -> None:
    low, high = entry.limits
    if not low <= value <= high:
        raise ValueError(f"{kind.name}: field {entry.name} must be in {low}..{high}, not {value!r}.")
    raw = value & ((1 << entry.width) - 1)
    words[entry.word] |= (raw << entry.lsb) & 0xFFFFFFFF
    if entry.width > 32:
        words[entry.word + 1] |= raw >> 32


def checksum(words: Sequence[int]) -> int:
    """The complement of the sum of words 0..30 modulo 2^32."""
    return ~sum(words) & 0xFFFFFFFF


def decode(data: bytes) -> Descriptor:
    """The descriptor in 128 bytes. Raises ValueError for a bad checksum, version or opcode."""
    words = struct.unpack(f"<{WORDS}I", data)
    if words[-1] != checksum(words[:-1]):
        raise ValueError(f"the checksum is {words[-1]:#010x}, not {checksum(words[:-1]):#010x}.")
    opcode, version = words[0] & 0xFF, words[0] >> 8 & 0xFF
    if version != FORMAT_VERSION:
        raise ValueError(f"format version must be {FORMAT_VERSION}, not {version}.")
    if opcode not in BY_OPCODE:
        raise ValueError(f"opcode {opcode:#04x} is unknown.")
    kind = BY_OPCODE[opcode]
    waits = {unit: (words[i] & 0xFFFFFF, words[i] >> 24) for i, unit in enumerate(UNITS, 1) if words[i]}
    return Descriptor(kind.name, {entry.name: _get(words, entry) for entry in kind.fields}, waits)


def _get(words: Sequence[int], entry: Field) -> int:
    raw = words[entry.word] >> entry.lsb
    if entry.width > 32:
        raw |= words[entry.word + 1] << 32
    raw &= (1 << entry.width) - 1
    return raw - (1 << entry.width) if entry.signed and raw >> (entry.width - 1) else raw


@dataclass(frozen=True)
class ProgramFile:
    """`program.bin`: the configuration it was made for, sizes of the buffers in external memory, descriptors.

    The last `spill_bytes` of the `output_bytes` hold what did not fit the scratchpad; the others are the result.
    """

    config_hash: int
    input_bytes: int
    output_bytes: int
    weight_bytes: int
    descriptors: Sequence[Descriptor]
    spill_bytes: int = 0

    @property
    def result_bytes(self) -> int:
        """Bytes of the output that are the result."""
        return self.output_bytes - self.spill_bytes

    @property
    def tasks(self) -> int:
        """How many tasks the register TASK may choose among: 1 if every task is the same."""
        return min((d["tasks"] for d in self.descriptors if d["tasks"]), default=1)

    def pack(self) -> bytes:
        """The file: a 36-byte header, then 128 bytes per descriptor."""
        header = HEADER.pack(
            MAGIC,
            FORMAT_VERSION,
            HEADER.size,
            self.config_hash,
            len(self.descriptors),
            self.input_bytes,
            self.output_bytes,
            self.weight_bytes,
            self.tasks,
            self.spill_bytes,
        )
        return header + b"".join(encode(d, i) for i, d in enumerate(self.descriptors))

    @staticmethod
    def unpack(data: bytes) -> ProgramFile:
        """Read a file. Raises ValueError with one sentence where it is malformed, naming the descriptor."""
        if len(data) < HEADER.size or data[:4] != MAGIC:
            raise ValueError("this is no accelerator program: it does not begin with 'ITGP'.")
        _, version, size, config_hash, count, inputs, outputs, weights, _, spill = HEADER.unpack_from(data)
        if version != FORMAT_VERSION or size != HEADER.size:
            raise ValueError(f"program format {version} is not {FORMAT_VERSION}; compile the model again.")
        if len(data) != size + count * BYTES:
            wanted = size + count * BYTES
            raise ValueError(f"the program has {len(data)} bytes, not {wanted}: it is truncated or damaged.")
        return ProgramFile(config_hash, inputs, outputs, weights, list(_descriptors(data[size:])), spill)


def _descriptors(data: bytes) -> Iterator[Descriptor]:
    for index in range(len(data) // BYTES):
        try:
            yield decode(data[index * BYTES : (index + 1) * BYTES])
        except ValueError as error:
            raise ValueError(f"descriptor {index}: {error}") from None
