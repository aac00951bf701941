"""What values tensors take on calibration images: ONNX Runtime's calibrators, one image at a time."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper
from onnxruntime.quantization.calibrate import (
    CalibrationDataReader,
    EntropyCalibrater,
    HistogramCalibrater,
    PercentileCalibrater,
)

from intaglio.errors import CalibrationError, ModelError
from intaglio.quantize.grids import Seen
from intaglio.quantize.images import Images, batch_of, model_input

BINS = 4096
ENTROPY_BINS = 512
PERCENTILE = 99.999

Progress = Callable[[str], None]


def calibrate(
    model: onnx.ModelProto, tensors: list[str], images: Images, method: str, folder: Path, progress: Progress
) -> dict[str, Seen]:
    """Run `images` through `model` and look at `tensors`. Files go to `folder`.

    Raises ModelError if ONNX Runtime cannot run the model, CalibrationError if a tensor is not finite.
    """
    given = model_input(model)
    batch = batch_of(given)
    source = folder / "calibrated.onnx"
    onnx.save(model, source)
    with contextlib.redirect_stdout(io.StringIO()), _one_sentence():
        calibrater = _calibrater(method, source, tensors, folder)
        for index, feed in enumerate(_batches(images, batch)):
            progress(f"calibrate {min((index + 1) * batch, len(images))}/{len(images)}")
            calibrater.collect_data(_One({given.name: feed}))
        found = calibrater.collector.get_histogram_dict()
        clipped = calibrater.compute_data() if method in ("percentile", "entropy") else {}
    return {name: _seen(name, found[name], clipped) for name in tensors}


class _Selected(HistogramCalibrater):
    """A calibrator of a given list of tensors, whatever op computes them."""

    chosen: list[str]

    def augment_graph(self) -> None:
        self.tensors_to_calibrate = set(self.chosen)
        for name in self.chosen:
            if name not in self.model_original_outputs:
                self.model.graph.output.append(
                    helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
                )
        onnx.save(self.model, self.augmented_model_path)


class _Percentile(_Selected, PercentileCalibrater):
    pass


class _Entropy(_Selected, EntropyCalibrater):
    pass


class _One(CalibrationDataReader):
    """One feed: calibrators keep the results of all feeds of a reader in memory."""

    def __init__(self, feed: dict[str, Any]) -> None:
        self._feeds = iter([feed])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


def _calibrater(method: str, source: Path, tensors: list[str], folder: Path) -> _Selected:
    augmented = str(folder / "augmented.onnx")
    result: _Selected
    if method == "entropy":
        result = _Entropy(
            source, augmented_model_path=augmented, num_bins=ENTROPY_BINS, num_quantized_bins=128
        )
    else:
        result = _Percentile(source, augmented_model_path=augmented, num_bins=BINS, percentile=PERCENTILE)
    result.chosen = tensors
    result.augment_graph()
    result.create_inference_session()
    return result


def _batches(images: Images, size: int) -> Iterator[Images]:
    """Whole batches; the last one is filled up with its own last image, which changes no range."""
    for start in range(0, len(images), size):
        part = images[start : start + size]
        lacking = size - len(part)
        yield np.concatenate([part, np.repeat(part[-1:], lacking, axis=0)]) if lacking else part


def _seen(name: str, found: tuple[Any, ...], clipped: Any) -> Seen:
    counts, edges, low, high = found[:4]
    edges = np.asarray(edges, np.float64)
    chosen = clipped[name].range_value if name in clipped else None
    return Seen(
        float(low), float(high), np.asarray(counts, np.int64), (edges[1:] + edges[:-1]) / 2,
        None if chosen is None else (float(chosen[0]), float(chosen[1])),
    )  # fmt: skip


@contextlib.contextmanager
def _one_sentence() -> Iterator[None]:
    """ONNX Runtime's exceptions, which have no common base, in our words."""
    try:
        yield
    except (OSError, MemoryError):
        raise
    except ValueError as error:  # NumPy's histogram refuses infinite ranges
        raise CalibrationError(
            "the model computes infinity or NaN on a calibration image: check the model and the images' normalization"
        ) from error
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"ONNX Runtime cannot run the model on the calibration images: {first}") from error
