"""Float or partly quantized ONNX plus calibration images -> QDQ ONNX with a scale for every tensor."""

from intaglio.quantize.flow import quantize
from intaglio.quantize.report import Added, QuantizeReport

__all__ = ["Added", "QuantizeReport", "quantize"]
