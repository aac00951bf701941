"""What a configuration comes to in numbers, under the names that RTL and HLS share."""

from __future__ import annotations

from intaglio.accelerator.config import AcceleratorConfig

Size = tuple[str, int, str]
"""Name, value, note ("" where the name says it)."""


def sizes(config: AcceleratorConfig) -> list[Size]:
    """The numbers that every description of the accelerator is made from."""
    return [
        ("ROWS", config.rows, "tokens per row tile"),
        ("COLS", config.cols, "channels per column tile"),
        ("DEPTH", config.depth, "products per step; bytes per beat"),
        ("GROUP", config.group, "channels that leave the array per cycle"),
        ("LANES", config.lanes, "results requantized per cycle"),
        ("TILE_GROUPS", config.tile_groups, "groups per column tile"),
        ("WORD_BYTES", config.word_bytes, "scratchpad word"),
        ("ENTRY_BYTES", config.entry_bytes, "weight buffer entry"),
        ("WEIGHT_ENTRIES", config.weight_entries, ""),
        ("A_WORDS", config.a_words, "int8 operands"),
        ("X_WORDS", config.x_words, "residual stream"),
        ("PARAM_GROUPS", config.param_groups, ""),
        ("NORM_CHANNELS", config.norm_channels, ""),
        ("TABLE_SLOTS", config.table_slots, "activation and exponential tables"),
        ("MAX_KEYS", config.max_keys, "tokens that attention may look at"),
        ("EXPERTS", config.experts, "that the router may choose from; 0: no router"),
        ("PORT_COLS", config.cols // config.weight_ports, "columns that one weight port fills"),
        ("BURST", config.burst, "beats per AXI burst"),
        ("OUTSTANDING", config.outstanding, "bursts in flight per port"),
    ]
