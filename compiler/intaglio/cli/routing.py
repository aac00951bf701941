"""Routing for people: what the mixtures of experts of a model did with an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table

from intaglio.cli.command import Result
from intaglio.cli.tables import count, table
from intaglio.errors import InputError

if TYPE_CHECKING:
    from intaglio.artifact import Artifact
    from intaglio.hw.iss.routing import RoutedLayer
    from intaglio.program import Array


def routing_tables(layers: Sequence[RoutedLayer], title: str = "") -> list[Table]:
    """One table, or none where there is no mixture of experts."""
    columns = {
        "mixture": "left", "tokens per expert": "left", "experts loaded": "right", "weights read": "right",
        "saved": "right",
    }  # fmt: skip
    return [table(title, columns, [_row(layer) for layer in layers])] if layers else []


def _row(layer: RoutedLayer) -> tuple[str, ...]:
    tokens = " ".join(map(str, layer.tokens))
    loaded = f"{layer.experts_loaded} of {len(layer.tokens)}"
    return layer.name, tokens, loaded, f"{count(layer.bytes_read)}B", f"{count(layer.bytes_saved)}B"


def routing(folder: Path, samples: Path | None, task: int, mean: str | None, std: str | None) -> Result:
    """The routing of the first sample, or of a random one: in an accelerator's simulator, else by the reference."""
    from intaglio import artifact

    if not folder.is_dir():
        raise InputError(f"--routing: {folder} is no output folder of intaglio compile.")
    compiled = artifact.load(folder)
    compiled.program.check_task(task)
    inputs = one_image(compiled, samples, mean, std)
    layers = _layers(compiled, inputs, task)
    view: list[RenderableType] = [*routing_tables(layers)] or ["the model has no mixture of experts."]
    return Result({"routing": [layer.as_json() for layer in layers]}, view)


def one_image(compiled: Artifact, samples: Path | None, mean: str | None, std: str | None) -> Array:
    """The first image of `samples`, or a random one, as the program takes it: [1, ...]."""
    from intaglio import feed
    from intaglio.data import load_samples, parse_channels
    from intaglio.samples import random_inputs

    how = feed.normalization(compiled, parse_channels("--mean", mean), parse_channels("--std", std))
    if samples is None:
        return random_inputs(compiled.program.tensors[compiled.program.input], 1)
    return feed.integers(compiled.program, load_samples(samples, compiled.manifest.input.shape[1:], 1), how)


def _layers(compiled: Artifact, inputs: Array, task: int) -> list[RoutedLayer]:
    from intaglio import execute, router
    from intaglio.backends import fpga
    from intaglio.hw.iss.routing import RoutedLayer
    from intaglio.routing import routed, routed_layers

    if execute.accelerator(compiled) is not None:
        accelerator = fpga.load(compiled)
        (found,) = routed(accelerator, [inputs[0].tobytes()], task)
        return routed_layers(accelerator, found)
    layers = router.record(compiled.program, inputs, task)
    return [
        RoutedLayer(
            index,
            layer.name,
            tuple(layer.tokens),
            layer.loaded[0] * layer.expert_bytes,
            round(layer.unused_bytes),
        )
        for index, layer in enumerate(layers)
    ]
