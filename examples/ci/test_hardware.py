"""What a project that deploys a model tests in its CI: the model on the accelerator's RTL, bit for bit."""

from __future__ import annotations

import os

BUILD = os.environ.get("BUILD", "build")
"""Output folder of `intaglio compile model.onnx --target tiny -o build/`."""


def test_every_bit_of_the_model_on_the_rtl(intaglio_simulate):
    report = intaglio_simulate(BUILD, images=1)
    assert report.errors == []
    assert report.bit_exact


def test_latency_stays_within_budget(intaglio_simulate):
    report = intaglio_simulate(BUILD, images=1)
    assert report.frames.cycles < 100_000
