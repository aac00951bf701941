"""Which descriptors the hardware takes, and descriptors that just fit or just do not."""

from __future__ import annotations

import random
from collections.abc import Callable

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import BY_NAME, KINDS, Descriptor

PIXEL_SLOTS, NORM_CHANNELS = 4, 4096


def ceil_div(a: int, b: int) -> int:
    """Smallest integer at least a / b."""
    return -(-a // b)


def fits(first: int, count: int, limit: int) -> bool:
    """A region of at least one place that ends within `limit`."""
    return count >= 1 and first + count <= limit


class Model:
    """The sizes of a configuration against one descriptor."""

    def __init__(self, config: AcceleratorConfig, d: Descriptor) -> None:
        self.config, self.d = config, d

    def legal(self) -> bool:
        """Whether the sequencer dispatches it."""
        checks: dict[str, Callable[[], bool]] = {
            "LOAD_WEIGHTS": lambda: self.block() and self.entries(self.d["entry"], self.d["entries"]),
            "LOAD_PARAMS": lambda: self.block() and self.params(self.d["group"]),
            "LOAD_NORM": lambda: self.block() and self.norm(),
            "LOAD_TABLE": self.table,
            "LOAD_ROWS": lambda: self.block() and self.words(self.d["addr"], self.d["words"], self.d["bank"]),
            "LOAD_IMAGE": self.image,
            "STORE": self.store,
            "COPY_KV": self.copy,
            "GEMM": self.gemm,
            "ATTENTION": self.attention,
            "LAYERNORM": self.layernorm,
        }
        return checks[self.d.kind]()

    def block(self) -> bool:
        return self.d["offset"] % 64 == 0

    def words(self, addr: int, count: int, bank: int) -> bool:
        return fits(addr, count, self.config.x_words if bank else self.config.a_words)

    def entries(self, entry: int, count: int) -> bool:
        return fits(entry, count, self.config.weight_entries)

    def params(self, group: int) -> bool:
        return fits(group, self.d["groups"], self.config.param_groups)

    def norm(self) -> bool:
        return fits(self.d["channel"], self.d["channels"], self.config.norm_channels)

    def tensor(self, name: str, words: int, rows: int, bank: int) -> bool:
        if rows < 1 or words < 1:
            return False
        extent = (ceil_div(rows, self.config.rows) - 1) * self.d[f"{name}stride"] + words
        return self.words(self.d[f"{name}addr"], extent, bank)

    def channel_words(self, channels: int, wide: int) -> int:
        return ceil_div(channels, self.config.group if wide else self.config.depth)

    def table(self) -> bool:
        slots = PIXEL_SLOTS if self.d["table"] == 2 else self.config.table_slots
        return self.block() and self.d["table"] <= 2 and self.d["slot"] < slots

    def image(self) -> bool:
        d, depth = self.d, self.config.depth
        piece, tokens = d["piece"], d["grid_h"] * d["grid_w"]
        if piece < 1 or piece & (piece - 1) or piece > depth or d["patch_w"] % piece:
            return False
        if d["channels"] > PIXEL_SLOTS or d["patch_h"] * d["grid_w"] * d["patch_w"] % depth:
            return False
        # More row tiles than an address has values are refused, whatever the stride.
        if ceil_div(tokens, self.config.rows) > 1 << 17:
            return False
        return self.tensor("", ceil_div(d["channels"] * d["patch_h"] * d["patch_w"], depth), tokens, 0)

    def store(self) -> bool:
        d = self.d
        return (
            d["row"] < self.config.rows
            and d["offset"] % self.config.depth == 0
            and self.words(d["addr"], d["words"], d["bank"])
        )

    def copy(self) -> bool:
        d, config = self.d, self.config
        if not 1 <= d["rows"] <= config.max_keys or not self.tensor("", d["chunks"], d["rows"], 0):
            return False
        if d["values"]:
            count = ceil_div(d["chunks"] * config.depth, config.cols) * ceil_div(d["rows"], config.depth)
        else:
            count = ceil_div(d["rows"], config.cols) * d["chunks"]
        return self.entries(d["entry"], count)

    def gemm(self) -> bool:
        d, config = self.d, self.config
        channels = d["groups"] * config.group
        return (
            self.tensor("a_", d["k_steps"], d["rows"], 0)
            and self.entries(d["entry"], ceil_div(d["groups"], config.tile_groups) * d["k_steps"])
            and self.params(d["group"])
            and self.tensor("o_", self.channel_words(channels, d["o_wide"]), d["rows"], d["o_bank"])
            and (not d["table"] or d["slot"] < config.table_slots)
            and (not d["residual"] or 1 <= d["add_shift"] <= 62)
            and (
                not d["residual"]
                or self.tensor("r_", self.channel_words(channels, d["r_wide"]), d["rows"], 1)
            )
        )

    def attention(self) -> bool:
        d, config = self.d, self.config
        k_entries = ceil_div(d["keys"], config.cols) * d["qk_steps"]
        v_entries = ceil_div(d["v_words"] * config.depth, config.cols) * ceil_div(d["keys"], config.depth)
        first = [d["entry"] + parity * d["entry_step"] for parity in range(min(2, d["heads"]))]
        return (
            1 <= d["keys"] <= config.max_keys
            and d["slot"] < config.table_slots
            and 1 <= d["score_shift"] <= 62
            and 1 <= d["shift"] <= 48
            and self.tensor("q_", d["heads"] * d["qk_steps"], d["rows"], 0)
            and self.tensor("o_", d["heads"] * d["v_words"], d["rows"], 0)
            and all(self.entries(entry, k_entries) for entry in first)
            and all(self.entries(entry + d["v_entry"], v_entries) for entry in first)
        )

    def layernorm(self) -> bool:
        d = self.d
        return (
            d["channels"] <= NORM_CHANNELS
            and self.norm()
            and 1 <= d["shift"] <= 62
            and self.tensor("x_", self.channel_words(d["channels"], d["x_wide"]), d["rows"], 1)
            and self.tensor("o_", self.channel_words(d["channels"], 0), d["rows"], 0)
        )


_SMALL = {
    "entries": 40, "groups": 40, "channels": 200, "words": 60, "chunks": 6, "k_steps": 12, "qk_steps": 5, "v_words": 5,
    "heads": 6, "keys": 60, "rows": 70, "stride": 20, "entry_step": 40, "v_entry": 30, "grid_h": 8, "grid_w": 8,
    "patch_h": 8, "patch_w": 8,
}  # fmt: skip


def random_descriptor(config: AcceleratorConfig, rng: random.Random) -> Descriptor:
    """Moderate sizes, then addresses raised to the last that fits, or one more; sometimes a field at random."""
    kind = rng.choice(KINDS)
    fields: dict[str, int] = {}
    for field in kind.fields:
        small = next((n for name, n in _SMALL.items() if field.name.endswith(name)), None)
        low, high = (1, small) if small else (field.limits[0], 1)
        fields[field.name] = rng.randint(low, high)
    fields |= {name: rng.choice([1, 5, 48, 62]) for name in fields if name.endswith("shift")}
    fields |= {
        name: 0
        for name in fields
        if name.endswith(("addr", "entry", "group", "channel")) and name != "v_entry"
    }
    fields |= {name: 64 * rng.randrange(1000) for name in fields if name == "offset"}
    if kind.name == "LOAD_IMAGE":
        fields |= {
            "piece": rng.choice([1, 2, 4]),
            "patch_w": 4 * rng.randint(1, 4),
            "grid_w": 4 * rng.randint(1, 4),
        }
        fields["channels"] = rng.randint(1, 4)
    for name in [
        name for name in fields if name.endswith(("addr", "entry", "group", "channel")) and name != "v_entry"
    ]:
        if rng.random() < 0.7:
            fields[name] = _edge(config, kind.name, fields, name) + rng.choice([0, 0, 0, 0, 1])
    if rng.random() < 0.4:
        field = rng.choice([f for f in BY_NAME[kind.name].fields if f.width <= 16])
        low, high = field.limits
        fields[field.name] = rng.choice([0, 1, high, rng.randint(low, high), fields[field.name] + 1]) % (
            high + 1
        )
    return Descriptor(kind.name, fields)


def _edge(config: AcceleratorConfig, kind: str, fields: dict[str, int], name: str) -> int:
    """The largest value of an address that is legal as far as it matters; 0 if none is."""
    if not Model(config, Descriptor(kind, fields)).legal():
        return 0
    low, high = 0, 65534
    while low < high:
        middle = (low + high + 1) // 2
        if Model(config, Descriptor(kind, {**fields, name: middle})).legal():
            low = middle
        else:
            high = middle - 1
    return low
