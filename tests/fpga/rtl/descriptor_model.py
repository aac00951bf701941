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
    """The sizes of a configuration and the last ROUTE, if any, against one descriptor."""

    def __init__(self, config: AcceleratorConfig, d: Descriptor, route: Descriptor | None = None) -> None:
        self.config, self.d, self.route = config, d, route

    def code(self, task: int) -> int:
        """The error that the sequencer finds: 0, 5 or, of those that are legal, 9."""
        if not self.legal():
            return 5
        return 9 if self.d["tasks"] and task >= self.d["tasks"] else 0

    def block(self, task: int) -> int:
        """What the sequencer adds to the offset, in units of 64 bytes."""
        return task * self.d["select"] % (1 << 26) if self.d["tasks"] else 0

    def legal(self) -> bool:
        """Whether it fits the configuration."""
        return self.queue() and self._kind()

    def queue(self) -> bool:
        """Whether the expert exists and the rows are enough for any queue."""
        d = self.d
        if not d["queue"]:
            return d.kind != "MOVE_ROWS"
        if not self.route or d["queue"] > self.config.experts:
            return False
        return "rows" not in d.fields or d["rows"] >= self.route["rows"]

    def _kind(self) -> bool:
        checks: dict[str, Callable[[], bool]] = {
            "LOAD_WEIGHTS": lambda: self.aligned() and self.entries(self.d["entry"], self.d["entries"]),
            "LOAD_PARAMS": lambda: self.aligned() and self.params(self.d["group"]),
            "LOAD_NORM": lambda: self.aligned() and self.norm(),
            "LOAD_TABLE": self.table,
            "LOAD_ROWS": lambda: (
                self.aligned() and self.words(self.d["addr"], self.d["words"], self.d["bank"])
            ),
            "LOAD_IMAGE": self.image,
            "STORE": self.store,
            "COPY_KV": self.copy,
            "ROUTE": self.routing,
            "MOVE_ROWS": self.move,
            "COMBINE": self.combine,
            "GEMM": self.gemm,
            "ATTENTION": self.attention,
            "LAYERNORM": self.layernorm,
        }
        return checks[self.d.kind]()

    def aligned(self) -> bool:
        return self.d["offset"] % 64 == 0

    def words(self, addr: int, count: int, bank: int) -> bool:
        return fits(addr, count, self.config.x_words if bank else self.config.a_words)

    def entries(self, entry: int, count: int) -> bool:
        return fits(entry, count, self.config.weight_entries)

    def params(self, group: int) -> bool:
        return fits(group, self.d["groups"], self.config.param_groups)

    def norm(self) -> bool:
        return fits(self.d["channel"], self.d["channels"], self.config.norm_channels)

    def tensor(self, name: str, words: int, rows: int, bank: int, addr: int = 0) -> bool:
        if rows < 1 or words < 1:
            return False
        extent = (ceil_div(rows, self.config.rows) - 1) * self.d[f"{name}stride"] + words
        return self.words(addr + self.d[f"{name}addr"], extent, bank)

    def channel_words(self, channels: int, wide: int) -> int:
        return ceil_div(channels, self.config.group if wide else self.config.depth)

    def table(self) -> bool:
        own = self.config.table_slots
        slots = {0: own, 1: own, 2: PIXEL_SLOTS, 3: 2 if self.config.experts else 0}
        return self.aligned() and self.d["slot"] < slots.get(self.d["table"], 0)

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
            d["row"] < (1 if d["all_rows"] else self.config.rows)
            and d["offset"] % (64 if d["all_rows"] else self.config.depth) == 0
            and self.words(d["addr"], d["words"], d["bank"])
        )

    def routing(self) -> bool:
        d, config = self.d, self.config
        return (
            1 <= d["rows"] <= config.max_keys
            and d["experts"] <= config.experts
            and 1 <= d["k"] <= min(4, d["experts"])
            and self.tensor("", self.channel_words(d["experts"], d["wide"]), d["rows"], 0)
        )

    def move(self) -> bool:
        d = self.d
        assert self.route
        return (
            1 <= d["rows"] <= self.config.max_keys
            and (not d["scatter"] or d["k"] == self.route["k"])
            and self.tensor("s_", d["chunks"], d["rows"], 0)
            and all(
                self.tensor("o_", d["chunks"], d["rows"], 0, slot * d["slot_stride"])
                for slot in range(d["k"] if d["scatter"] else 1)
            )
        )

    def combine(self) -> bool:
        d, words = self.d, self.channel_words(self.d["groups"] * self.config.group, 0)
        return (
            self.route is not None
            and all(d[name] == self.route[name] for name in ("k", "rows"))
            and 1 <= d["shift"] <= 48
            and all(self.tensor("a_", words, d["rows"], 0, slot * d["slot_stride"]) for slot in range(d["k"]))
            and self.sum()
        )

    def sum(self) -> bool:
        """Result and residual of GEMM and COMBINE."""
        d, channels = self.d, self.d["groups"] * self.config.group
        return self.tensor("o_", self.channel_words(channels, d["o_wide"]), d["rows"], d["o_bank"]) and (
            not d["residual"]
            or (
                1 <= d["add_shift"] <= 62
                and self.tensor("r_", self.channel_words(channels, d["r_wide"]), d["rows"], 1)
            )
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
        return (
            self.tensor("a_", d["k_steps"], d["rows"], 0)
            and self.entries(d["entry"], ceil_div(d["groups"], config.tile_groups) * d["k_steps"])
            and self.params(d["group"])
            and (not d["table"] or d["slot"] < config.table_slots)
            and self.sum()
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
    "patch_h": 8, "patch_w": 8, "experts": 12,
}  # fmt: skip


def random_descriptor(
    config: AcceleratorConfig, rng: random.Random, route: Descriptor | None = None
) -> Descriptor:
    """Moderate sizes, then addresses raised to the last that fits, or one more; sometimes a field at random."""
    kind = rng.choice(KINDS)
    fields: dict[str, int] = {}
    for field in kind.fields:
        small = next((n for name, n in _SMALL.items() if field.name.endswith(name)), None)
        low, high = (1, small) if small and field.width > 1 else (field.limits[0], 1)
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
    fields |= _routed(config, rng, kind.name, fields, route)
    for name in [
        name for name in fields if name.endswith(("addr", "entry", "group", "channel")) and name != "v_entry"
    ]:
        if rng.random() < 0.7:
            fields[name] = _edge(config, kind.name, fields, name, route) + rng.choice([0, 0, 0, 0, 1])
    if rng.random() < 0.4:
        field = rng.choice([f for f in BY_NAME[kind.name].fields if f.width <= 16])
        low, high = field.limits
        fields[field.name] = rng.choice([0, 1, high, rng.randint(low, high), fields[field.name] + 1]) % (
            high + 1
        )
    return Descriptor(kind.name, fields)


def _routed(
    config: AcceleratorConfig,
    rng: random.Random,
    kind: str,
    fields: dict[str, int],
    route: Descriptor | None,
) -> dict[str, int]:
    """Fields that have to do with experts and tasks, mostly as they must be."""
    found: dict[str, int] = {}
    if "queue" in fields:
        found["queue"] = rng.choice([0, 1, max(config.experts, 1), config.experts + 1])
    if kind == "ROUTE":
        found["experts"] = rng.randint(1, max(config.experts, 1))
        found["k"] = rng.randint(1, min(4, found["experts"]) + (rng.random() < 0.1))
    if kind in ("MOVE_ROWS", "COMBINE") and route and rng.random() < 0.9:
        found |= {name: route[name] for name in ("k", "rows")}
    if "table" in fields and kind == "LOAD_TABLE":
        found["table"] = rng.randrange(5)
    if "tasks" in fields:
        found |= {"tasks": rng.choice([0, 0, 1, 2, 3, 255]), "select": rng.getrandbits(rng.randint(1, 24))}
    return found


def _edge(
    config: AcceleratorConfig, kind: str, fields: dict[str, int], name: str, route: Descriptor | None
) -> int:
    """The largest value of an address that is legal as far as it matters; 0 if none is."""
    if not Model(config, Descriptor(kind, fields), route).legal():
        return 0
    low, high = 0, 65534
    while low < high:
        middle = (low + high + 1) // 2
        if Model(config, Descriptor(kind, {**fields, name: middle}), route).legal():
            low = middle
        else:
            high = middle - 1
    return low
