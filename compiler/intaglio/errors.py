"""Errors a user can reach: one clear sentence, exit code 2."""

from __future__ import annotations


class IntaglioError(Exception):
    """What was expected, what came, where, and what to do, in one sentence or two."""

    exit_code = 2


class ModelError(IntaglioError):
    """The model file cannot be read or is malformed."""


class UnsupportedError(IntaglioError):
    """The model holds something that has no integer meaning here."""


class CalibrationError(IntaglioError):
    """Activations without a scale: calibration is missing."""


class InputError(IntaglioError):
    """An input array, image or option does not fit the model."""


class ToolError(IntaglioError):
    """A tool that the job needs (a C compiler, objdump) is missing or failed."""


class ArtifactError(IntaglioError):
    """An output folder cannot be written, or is not one of ours."""
