"""What can be said of a descriptor without running it: fields, and addresses against the configuration."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import BY_NAME, UNITS, Descriptor, ProgramFile
from intaglio.hw.iss.errors import FaultError, IssError, blame
from intaglio.hw.iss.layout import ceil_div, word_count
from intaglio.hw.iss.machine import row_tiles
from intaglio.hw.iss.memory import PIXEL_SLOTS, ROUTER_SLOTS, TOP
from intaglio.hw.iss.transfer import ROUTER

BLOCK = 64
_COUNTS = (
    "entries", "groups", "channels", "words", "chunks", "rows", "keys", "heads", "k_steps", "qk_steps", "v_words",
    "experts", "patch_h", "patch_w", "grid_h", "grid_w", "piece",
)  # fmt: skip
_MULTIPLIER = 1 << 26
_OFFSET = 1 << 61
_ADD_OFFSET = 1 << 46
_MAX_CHANNELS = 4096


def check_program(config: AcceleratorConfig, program: ProgramFile, weight_bytes: int) -> None:
    """Raise IssError for the first descriptor that breaks the contract, and for files that do not fit together."""
    if program.config_hash != config.hash:
        raise IssError(
            f"the program was made for configuration {program.config_hash:#010x}, not for {config.hash:#010x}; "
            "compile the model for this one."
        )
    if weight_bytes != program.weight_bytes:
        raise IssError(
            f"weights.bin has {weight_bytes} bytes, not the {program.weight_bytes} of the program."
        )
    route: Descriptor | None = None
    for index, d in enumerate(program.descriptors):
        try:
            _check_counts(d)
            _CHECKS[d.kind](_Checker(config, program, d, route))
        except FaultError as fault:
            raise blame(index, d.kind, fault) from None
        route = d if d.kind == "ROUTE" else route


def _check_counts(d: Descriptor) -> None:
    for field in BY_NAME[d.kind].fields:
        value = d[field.name]
        if field.name in _COUNTS and value < 1:
            raise FaultError(f"{field.name} must be at least 1, not {value}.")
    for unit, (base, step) in d.waits.items():
        if unit not in UNITS or base < 0 or step < 0:
            raise FaultError(f"the wait for {unit} must be (base, step), not {(base, step)!r}.")


class _Checker:
    """One descriptor against the sizes of everything it addresses, and against the last ROUTE before it."""

    def __init__(
        self, config: AcceleratorConfig, program: ProgramFile, d: Descriptor, route: Descriptor | None
    ) -> None:
        self.config, self.program, self.d, self.route = config, program, d, route
        if d["queue"]:
            self.experts("queue", d["queue"])
        if d["queue"] and self.routing()["rows"] > d["rows"] and "rows" in d.fields:
            raise FaultError(
                f"rows must be at least the {self.routing()['rows']} of the last ROUTE, not {d['rows']}."
            )

    def routing(self) -> Descriptor:
        """The last ROUTE."""
        if self.route is None:
            raise FaultError("no ROUTE comes before it.")
        return self.route

    def experts(self, what: str, count: int) -> None:
        if count > self.config.experts:
            raise FaultError(
                f"{what} {count} exceeds the {self.config.experts} experts of the configuration."
            )

    def as_routed(self, *names: str) -> None:
        """These fields must be as in the last ROUTE."""
        for name in names:
            if self.d[name] != self.routing()[name]:
                raise FaultError(
                    f"{name} must be the {self.routing()[name]} of the last ROUTE, not {self.d[name]}."
                )

    def region(self, what: str, first: int, count: int, limit: int, memory: str) -> None:
        if first + count > limit:
            last = first + count - 1
            raise FaultError(f"{what} {first}..{last} exceed the {limit} of {memory}.")

    def words(self, what: str, addr: int, count: int, bank: int) -> None:
        limit = self.config.x_words if bank else self.config.a_words
        self.region(f"{what} words", addr, count, limit, "bank X" if bank else "bank A")

    def tensor(
        self, what: str, words: int, bank: int, tiles: int, addr: int = 0, written: bool = False
    ) -> None:
        """Tensor (`<what>_addr` + addr, `<what>_stride`): `words` words in each of `tiles` row tiles."""
        prefix = f"{what}_" if what else ""
        addr, stride = addr + self.d[f"{prefix}addr"], self.d[f"{prefix}stride"]
        self.words(what or "its", addr, (tiles - 1) * stride + words, bank)
        if written and tiles > 1 and stride < words:
            raise FaultError(
                f"{prefix}stride {stride} is less than the {words} words of a row tile: its row tiles overlap."
            )

    def block(self, size: int) -> None:
        """`size` bytes of weights.bin from `offset`."""
        offset = self.d["offset"]
        if offset % BLOCK:
            raise FaultError(f"offset must be a multiple of {BLOCK}, not {offset}.")
        last = max(self.d["tasks"] - 1, 0) * self.d["select"] * BLOCK
        self.region("bytes", offset, last + size, self.program.weight_bytes, "weights.bin")

    def spilled(self) -> None:
        """Whole words in the spill area, the last bytes of the output."""
        offset, first = self.d["offset"], self.program.result_bytes
        if offset % BLOCK:
            raise FaultError(f"offset must be a multiple of {BLOCK}, not {offset}.")
        if offset < first:
            raise FaultError(f"offset must be at least {first}, where the spill area begins, not {offset}.")
        if self.d["row"]:
            raise FaultError(f"row must be 0 where all rows are stored, not {self.d['row']}.")
        size = self.d["words"] * self.config.word_bytes
        self.region("bytes", offset, size, self.program.output_bytes, "the output")

    def entries(self, what: str, entry: int, count: int) -> None:
        self.region(f"{what} entries", entry, count, self.config.weight_entries, "the weight buffer")

    def shift(self, name: str, high: int = 62) -> None:
        if not 1 <= self.d[name] <= high:
            raise FaultError(f"{name} must be in 1..{high}, not {self.d[name]}.")

    def slot(self, table: str) -> None:
        if self.d["slot"] >= self.config.table_slots:
            raise FaultError(
                f"slot {self.d['slot']} exceeds the {self.config.table_slots} of the {table} table."
            )

    def magnitude(self, name: str, limit: int) -> None:
        if not -limit <= self.d[name] <= limit:
            power = limit.bit_length() - 1
            raise FaultError(f"{name} must be in -2^{power}..2^{power}, not {self.d[name]}.")


def _load_weights(c: _Checker) -> None:
    c.entries("its", c.d["entry"], c.d["entries"])
    c.block(c.d["entries"] * c.config.entry_bytes)


def _load_params(c: _Checker) -> None:
    c.region("groups", c.d["group"], c.d["groups"], c.config.param_groups, "the parameter buffer")
    c.block(c.d["groups"] * c.config.group * 8)


def _load_norm(c: _Checker) -> None:
    c.region("channels", c.d["channel"], c.d["channels"], c.config.norm_channels, "the LayerNorm buffer")
    c.block(c.d["channels"] * 16)


def _check_router(config: AcceleratorConfig) -> None:
    if not config.experts:
        raise FaultError("a router table is for experts, the configuration has none.")


def _load_table(c: _Checker) -> None:
    if c.d["table"] > ROUTER:
        raise FaultError(f"table must be in 0..{ROUTER}, not {c.d['table']}.")
    if c.d["table"] == ROUTER:
        _check_router(c.config)
    if c.d["table"] == ROUTER and c.d["slot"] >= ROUTER_SLOTS:
        raise FaultError(f"slot {c.d['slot']} exceeds the {ROUTER_SLOTS} of the router table.")
    if c.d["table"] == 2 and c.d["slot"] >= PIXEL_SLOTS:
        raise FaultError(f"slot {c.d['slot']} exceeds the {PIXEL_SLOTS} of the pixel table.")
    if c.d["table"] < 2:
        c.slot(("activation", "exponential")[c.d["table"]])
    c.block(512)


def _load_rows(c: _Checker) -> None:
    c.words("its", c.d["addr"], c.d["words"], c.d["bank"])
    if c.d["spilled"]:
        c.spilled()
    else:
        c.block(c.d["words"] * c.config.word_bytes)


def _load_image(c: _Checker) -> None:
    d, depth = c.d, c.config.depth
    if d["channels"] > PIXEL_SLOTS:
        raise FaultError(f"channels must be at most {PIXEL_SLOTS}, not {d['channels']}.")
    piece = d["piece"]
    if piece & (piece - 1) or d["patch_w"] % piece or piece > depth:
        raise FaultError(
            f"piece must be a power of two that divides patch_w {d['patch_w']}, at most {depth}, not {piece}."
        )
    band = d["patch_h"] * d["grid_w"] * d["patch_w"]
    if band % depth:
        raise FaultError(f"a band of {band} bytes (patch_h * grid_w * patch_w) is no multiple of {depth}.")
    c.region("bytes", 0, d["channels"] * d["grid_h"] * band, c.program.input_bytes, "the image")
    words = ceil_div(d["channels"] * d["patch_h"] * d["patch_w"], depth)
    c.tensor("", words, 0, row_tiles(c.config, d), written=True)


def _store(c: _Checker) -> None:
    depth = c.config.depth
    c.words("its", c.d["addr"], c.d["words"], c.d["bank"])
    if c.d["all_rows"]:
        c.spilled()
        return
    if c.d["offset"] % depth:
        raise FaultError(f"offset must be a multiple of {depth}, not {c.d['offset']}.")
    if c.d["row"] >= c.config.rows:
        raise FaultError(f"row {c.d['row']} exceeds the {c.config.rows} of a word.")
    c.region("bytes", c.d["offset"], c.d["words"] * depth, c.program.result_bytes, "the result")


def _copy_kv(c: _Checker) -> None:
    d, config = c.d, c.config
    c.tensor("", d["chunks"], 0, ceil_div(d["rows"], config.rows))
    if d["values"]:
        tiles = ceil_div(d["chunks"] * config.depth, config.cols)
        c.entries("its", d["entry"], tiles * ceil_div(d["rows"], config.depth))
    else:
        c.entries("its", d["entry"], ceil_div(d["rows"], config.cols) * d["chunks"])
    c.region("rows", 0, d["rows"], config.max_keys, "max_keys")


def _route(c: _Checker) -> None:
    d = c.d
    c.experts("the number of experts", d["experts"])
    most = min(TOP, d["experts"])
    if not 1 <= d["k"] <= most:
        raise FaultError(f"k must be in 1..{most}, not {d['k']}.")
    c.region("rows", 0, d["rows"], c.config.max_keys, "max_keys")
    c.tensor("", word_count(c.config, d["experts"], d["wide"]), 0, ceil_div(d["rows"], c.config.rows))


def _move_rows(c: _Checker) -> None:
    d, tiles = c.d, ceil_div(c.d["rows"], c.config.rows)
    if not d["queue"]:
        raise FaultError("queue must name an expert, not be 0.")
    c.region("rows", 0, d["rows"], c.config.max_keys, "max_keys")
    if d["scatter"]:
        c.as_routed("k")
    c.tensor("s", d["chunks"], 0, tiles)
    for slot in range(d["k"] if d["scatter"] else 1):
        addr = slot * d["slot_stride"]
        c.tensor("o", d["chunks"], 0, tiles, addr, written=True)
        if _share(c, "s", d["chunks"], "o", d["chunks"], addr):
            raise FaultError("o overlaps s: it is written while s is still read.")


def _share(c: _Checker, one: str, words: int, other: str, other_words: int, addr: int = 0) -> bool:
    """Whether tensors `one` and `other` (+ addr) share a word, be it in different row tiles."""
    d, tile = c.d, np.arange(ceil_div(c.d["rows"], c.config.rows))[:, None]
    first = d[f"{one}_addr"] + tile * d[f"{one}_stride"] + np.arange(words)
    second = addr + d[f"{other}_addr"] + tile * d[f"{other}_stride"] + np.arange(other_words)
    if first.max() < second.min() or second.max() < first.min():
        return False
    return bool(np.isin(first, second).any())


def _combine(c: _Checker) -> None:
    d, config = c.d, c.config
    c.as_routed("k", "rows")
    channels, tiles = d["groups"] * config.group, row_tiles(config, d)
    _widths(d)
    words, o_words = word_count(config, channels, 0), word_count(config, channels, d["o_wide"])
    c.tensor("o", o_words, d["o_bank"], tiles, written=True)
    for slot in range(d["k"]):
        addr = slot * d["slot_stride"]
        c.tensor("a", words, 0, tiles, addr)
        if not d["o_bank"] and tensor_overlap(d, "a", words, "o", o_words, tiles, addr):
            raise FaultError("o overlaps a within a row tile: it is written while a is still read.")
    if d["residual"]:
        _residual(c, channels, o_words, tiles)
    c.shift("shift", 48)
    if d["multiplier"] >= _MULTIPLIER:
        raise FaultError(f"multiplier must be below 2^26, not {d['multiplier']}.")
    if not -128 <= d["y_zero"] <= 127:
        raise FaultError(f"y_zero must be in -128..127, not {d['y_zero']}.")


def _widths(d: Descriptor) -> None:
    if not d["residual"] and not d["table"] and d["o_wide"] != d["wide"]:
        raise FaultError(f"o_wide is {d['o_wide']} and wide {d['wide']}: without residual they must agree.")


def _gemm(c: _Checker) -> None:
    d, config = c.d, c.config
    channels, tiles = d["groups"] * config.group, row_tiles(config, d)
    if d["wide"] and d["table"]:
        raise FaultError("table and wide exclude each other: a table has 256 entries.")
    _widths(d)
    c.tensor("a", d["k_steps"], 0, tiles)
    c.entries("its", d["entry"], ceil_div(d["groups"], config.tile_groups) * d["k_steps"])
    c.region("groups", d["group"], d["groups"], config.param_groups, "the parameter buffer")
    o_words = word_count(config, channels, d["o_wide"])
    c.tensor("o", o_words, d["o_bank"], tiles, written=True)
    if not d["o_bank"] and tensor_overlap(d, "a", d["k_steps"], "o", o_words, tiles):
        raise FaultError("o overlaps a within a row tile: it is written while a is still read.")
    if d["queue"] and not d["o_bank"] and _share(c, "a", d["k_steps"], "o", o_words):
        raise FaultError("o overlaps a: with queue, row tiles do not wait for each other.")
    if d["table"]:
        c.slot("activation")
    if d["residual"]:
        _residual(c, channels, o_words, tiles)


def _residual(c: _Checker, channels: int, o_words: int, tiles: int) -> None:
    d = c.d
    r_words = word_count(c.config, channels, d["r_wide"])
    c.tensor("r", r_words, 1, tiles)
    c.shift("add_shift")
    for name in ("add_a", "add_b"):
        if abs(d[name]) >= _MULTIPLIER:
            raise FaultError(f"{name} must be below 2^26 in magnitude, not {d[name]}.")
    c.magnitude("add_offset", _ADD_OFFSET)
    same = (
        d["r_addr"] == d["o_addr"]
        and d["r_wide"] == d["o_wide"]
        and (tiles == 1 or d["r_stride"] == d["o_stride"])
    )
    if d["o_bank"] and not same and tensor_overlap(d, "r", r_words, "o", o_words, tiles):
        raise FaultError("o overlaps r within a row tile without being r.")
    if d["queue"] and d["o_bank"] and not same and _share(c, "r", r_words, "o", o_words):
        raise FaultError("o overlaps r: with queue, row tiles do not wait for each other.")


def tensor_overlap(
    d: Descriptor, one: str, words: int, other: str, other_words: int, tiles: int, addr: int = 0
) -> bool:
    """Whether tensors `one` (+ addr) and `other` share a word in the same row tile."""
    distance = d[f"{other}_addr"] - d[f"{one}_addr"] - addr
    slope = d[f"{other}_stride"] - d[f"{one}_stride"]
    return any(-other_words < distance + tile * slope < words for tile in range(tiles))


def _attention(c: _Checker) -> None:
    d, config = c.d, c.config
    heads, tiles = d["heads"], row_tiles(config, d)
    c.tensor("q", heads * d["qk_steps"], 0, tiles)
    c.tensor("o", heads * d["v_words"], 0, tiles, written=True)
    c.region("keys", 0, d["keys"], config.max_keys, "max_keys")
    k_entries = ceil_div(d["keys"], config.cols) * d["qk_steps"]
    v_entries = ceil_div(d["v_words"] * config.depth, config.cols) * ceil_div(d["keys"], config.depth)
    for parity in range(min(heads, 2)):
        entry = d["entry"] + parity * d["entry_step"]
        c.entries("K", entry, k_entries)
        c.entries("V", entry + d["v_entry"], v_entries)
    c.slot("exponential")
    c.shift("score_shift")
    # Semantics: at most 62 - (e_bits - 1).
    c.shift("shift", 48)
    for name in ("multiplier", "score_multiplier"):
        if d[name] >= _MULTIPLIER:
            raise FaultError(f"{name} must be below 2^26, not {d[name]}.")
    for name in ("q_zero", "k_zero", "v_zero"):
        if not -128 <= d[name] <= 127:
            raise FaultError(f"{name} must be in -128..127, not {d[name]}.")
    bias = d["qk_steps"] * config.depth * d["q_zero"] * d["k_zero"]
    if d["score_bias"] != bias:
        raise FaultError(
            f"score_bias must be qk_steps * depth * q_zero * k_zero, {bias}, not {d['score_bias']}."
        )


def _layernorm(c: _Checker) -> None:
    d, config = c.d, c.config
    channels, tiles = d["channels"], row_tiles(config, d)
    if channels > _MAX_CHANNELS:
        raise FaultError(f"channels must be at most {_MAX_CHANNELS}, not {channels}.")
    c.tensor("x", word_count(config, channels, d["x_wide"]), 1, tiles)
    c.tensor("o", word_count(config, channels, 0), 0, tiles, written=True)
    c.region("channels", d["channel"], channels, config.norm_channels, "the LayerNorm buffer")
    c.shift("shift")
    c.magnitude("eps", _OFFSET)


_CHECKS: dict[str, Callable[[_Checker], None]] = {
    "LOAD_WEIGHTS": _load_weights,
    "LOAD_PARAMS": _load_params,
    "LOAD_NORM": _load_norm,
    "LOAD_TABLE": _load_table,
    "LOAD_ROWS": _load_rows,
    "LOAD_IMAGE": _load_image,
    "STORE": _store,
    "COPY_KV": _copy_kv,
    "ROUTE": _route,
    "MOVE_ROWS": _move_rows,
    "GEMM": _gemm,
    "ATTENTION": _attention,
    "COMBINE": _combine,
    "LAYERNORM": _layernorm,
}
