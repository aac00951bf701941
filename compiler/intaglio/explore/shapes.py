"""A model's operations on an accelerator of given rows and depth, as sizes: all that the fast model needs of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from intaglio.accelerator.config import AcceleratorConfig
from intaglio.accelerator.descriptors import Descriptor
from intaglio.backends.fpga.allocate import allocate
from intaglio.backends.fpga.graph import Graph
from intaglio.backends.fpga.lower import lower
from intaglio.backends.fpga.operations import (
    Attention,
    Experts,
    Gemm,
    Image,
    LayerNorm,
    Operation,
    Preload,
    Store,
)
from intaglio.hw.cycles.routing import shared


@dataclass(frozen=True)
class Product:
    """A GEMM of `rows` tokens: `channels` results of `steps` words; `reads`: the operation that made its operand."""

    rows: int
    channels: int
    steps: int
    table: bool
    residual: bool
    wide: bool
    reads: int


@dataclass(frozen=True)
class Attend:
    """Attention: words of a head of q and k, and of v."""

    rows: int
    heads: int
    keys: int
    qk_words: int
    v_words: int

    def entries(self, config: AcceleratorConfig) -> tuple[int, int]:
        """Weight entries of a head's keys, and of its values: steps of the array for a row tile's scores, and half of
        those for its results.
        """
        keys = -(-self.keys // config.cols) * self.qk_words
        return keys, -(-self.v_words * config.depth // config.cols) * -(-self.keys // config.depth)


@dataclass(frozen=True)
class Norm:
    """LayerNorm; `reads`: the operation that made its operand."""

    rows: int
    channels: int
    wide: bool
    reads: int


@dataclass(frozen=True)
class Picture:
    """The image: bytes, and what a descriptor says of it."""

    channels: int
    height: int
    width: int
    patch: tuple[int, int]

    @property
    def bytes(self) -> int:
        return self.channels * self.height * self.width


@dataclass(frozen=True)
class Rows:
    """Words of bank A or X that come from, or go to, external memory."""

    words: int
    stored: bool


@dataclass(frozen=True)
class Mixture:
    """Experts of `rows` tokens, `k` of `experts` each: words of a token, hidden and resulting channels.

    `logits`: the operation that made them. Tokens are spread evenly.
    """

    rows: int
    experts: int
    k: int
    words: int
    hidden: int
    channels: int
    steps: tuple[int, int]
    table: bool
    residual: bool
    wide: bool
    logits: int

    @property
    def tokens(self) -> list[int]:
        """Of every expert."""
        return shared(self.rows * self.k, self.experts)


Shape = Product | Attend | Norm | Picture | Rows | Mixture


@dataclass(frozen=True)
class Shapes:
    """Operations in program order, and the least a configuration must have to run them without spilling."""

    shapes: Sequence[Shape]
    a_words: int
    x_words: int
    norm_channels: int
    keys: int
    experts: int


def shapes_of(graph: Graph, config: AcceleratorConfig) -> Shapes:
    """Sizes of a model's operations for a configuration's `rows` and `depth`; nothing else of it counts.

    Raises UnsupportedError where an op does not fit any configuration.
    """
    roomy = config.model_copy(update={"max_keys": 1024, "norm_channels": 65536, "experts": 64})
    operations = lower(graph, roomy)
    words = allocate(operations, roomy).words
    found = list(_shapes(operations, roomy))
    return Shapes(
        found,
        words["A"],
        words["X"],
        max((one.channels for one in found if isinstance(one, Norm)), default=8),
        max(max(one.rows, one.keys) if isinstance(one, Attend) else 16 for one in found),
        max((one.experts for one in found if isinstance(one, Mixture)), default=0),
    )


def _shapes(operations: Sequence[Operation], config: AcceleratorConfig) -> Iterator[Shape]:
    makers = {operation.writes: index for index, operation in enumerate(operations) if operation.writes}
    for operation in operations:
        match operation:
            case Gemm():
                yield Product(
                    operation.rows, len(operation.weight), len(operation.a.columns) // config.depth,
                    operation.table is not None, operation.residual is not None, operation.wide,
                    makers.get(operation.a, -1),
                )  # fmt: skip
            case Attention():
                yield Attend(
                    operation.out.rows, operation.heads, operation.keys, operation.qk_words, operation.v_words
                )
            case LayerNorm():
                made = makers.get(operation.x, -1)
                yield Norm(operation.out.rows, len(operation.gain), operation.x.wide, made)
            case Image():
                channels, height, width = operation.image
                yield Picture(channels, height, width, operation.patch)
            case Preload():
                tiles = -(-len(operation.values) // config.rows)
                yield Rows(tiles * operation.out.stride(config), stored=False)
            case Store():
                yield Rows(operation.x.stride(config), stored=True)
            case Experts():
                first, second = operation.first[0].weight, operation.second[0].weight
                yield Mixture(
                    operation.out.rows, len(operation.first), operation.moe.attrs["k"], operation.x.stride(config),
                    len(first), len(second), (first.shape[1] // config.depth, second.shape[1] // config.depth),
                    operation.tables is not None, operation.residual is not None, operation.out.wide,
                    makers.get(operation.logits, -1),
                )  # fmt: skip
            case _:
                raise TypeError(f"no shape is known for {type(operation).__name__}.")


def descriptors(shapes: Sequence[Shape], config: AcceleratorConfig) -> list[Descriptor]:
    """What the energy model counts of them: every operation in one piece, its loads beside it."""
    found: list[Descriptor] = []
    for shape in shapes:
        found.extend(_descriptors(shape, config))
    return found


def _descriptors(shape: Shape, config: AcceleratorConfig) -> Iterator[Descriptor]:
    match shape:
        case Product():
            flags = {
                "table": shape.table,
                "residual": shape.residual,
                "r_wide": shape.wide,
                "o_wide": shape.wide,
            }
            yield from _matrix(shape.rows, shape.channels, shape.steps, flags, config)
        case Attend():
            fields = {
                "rows": shape.rows,
                "heads": shape.heads,
                "keys": shape.keys,
                "qk_steps": shape.qk_words,
            }
            yield Descriptor("ATTENTION", fields | {"v_words": shape.v_words})
            copied = {"rows": shape.keys, "chunks": shape.heads * (shape.qk_words + shape.v_words)}
            yield Descriptor("COPY_KV", copied)
        case Norm():
            yield Descriptor("LOAD_NORM", {"channels": shape.channels})
            fields = {"rows": shape.rows, "channels": shape.channels, "x_wide": int(shape.wide)}
            yield Descriptor("LAYERNORM", fields)
        case Picture():
            (ph, pw), height, width = shape.patch, shape.height, shape.width
            fields = {"channels": shape.channels, "patch_h": ph, "patch_w": pw}
            yield Descriptor("LOAD_IMAGE", fields | {"grid_h": height // ph, "grid_w": width // pw})
        case Rows():
            yield Descriptor("STORE" if shape.stored else "LOAD_ROWS", {"words": shape.words})
        case Mixture():
            yield from _mixture(shape, config)
        case _:
            assert_never(shape)


def _matrix(
    rows: int, channels: int, steps: int, flags: dict[str, bool], config: AcceleratorConfig
) -> Iterator[Descriptor]:
    groups = channels // config.group
    yield Descriptor("LOAD_WEIGHTS", {"entries": -(-channels // config.cols) * steps})
    yield Descriptor("LOAD_PARAMS", {"groups": groups})
    fields = {"rows": rows, "groups": groups, "k_steps": steps}
    yield Descriptor("GEMM", fields | {name: int(flag) for name, flag in flags.items()})


def _mixture(shape: Mixture, config: AcceleratorConfig) -> Iterator[Descriptor]:
    yield Descriptor("ROUTE", {"rows": shape.rows, "experts": shape.experts})
    for tokens in filter(None, shape.tokens):
        yield Descriptor("MOVE_ROWS", {"rows": 2 * tokens, "chunks": shape.words})
        yield from _matrix(tokens, shape.hidden, shape.steps[0], {"table": shape.table}, config)
        yield from _matrix(tokens, shape.channels, shape.steps[1], {}, config)
    fields = {"rows": shape.rows, "groups": shape.channels // config.group, "k": shape.k}
    flags = {"residual": shape.residual, "r_wide": shape.wide, "o_wide": shape.wide}
    yield Descriptor("COMBINE", fields | {name: int(flag) for name, flag in flags.items()})
