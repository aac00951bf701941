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
    HistogramCalibrater,
    HistogramCollector,
)

from intaglio.errors import CalibrationError, IntaglioError, ModelError
from intaglio.quantize.grids import Seen
from intaglio.quantize.images import Images, batch_of, model_input, task_feeds
from intaglio.quantize.session import open_session

BINS = 4096
ENTROPY_BINS = 512
# Methods whose ranges ONNX Runtime chooses.
CLIPPING = {"percentile": "percentile", "entropy": "entropy"}
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
            for task in task_feeds(model):
                calibrater.collect_data(_One({given.name: feed, **task}))
        clipped = calibrater.collector.compute_collection_result() if method in CLIPPING else {}
    found = calibrater.collector.get_histogram_dict()
    return {name: _seen(found[name], clipped.get(name)) for name in tensors}


class _Calibrater(HistogramCalibrater):
    """A calibrator of a given list of tensors, whatever op computes them."""

    chosen: list[str]

    def augment_graph(self) -> None:
        """Make them outputs."""
        self.tensors_to_calibrate = set(self.chosen)
        for name in self.chosen:
            if name not in self.model_original_outputs:
                value = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
                self.model.graph.output.append(value)
        onnx.save(self.model, self.augmented_model_path)

    def create_inference_session(self) -> None:
        """As ours are: without warnings."""
        self.infer_session = open_session(self.augmented_model_path)


class _Collector(HistogramCollector):
    """Histograms of finite values only: NumPy's leave NaN out in silence."""

    def collect(self, name_to_arr: dict[str, list[Any]]) -> Any:
        """Add the tensors of one run. Raises CalibrationError if one is not finite."""
        for name, arrays in name_to_arr.items():
            if not all(np.isfinite(array).all() for array in arrays):
                raise CalibrationError(
                    f"tensor {name!r} is infinite or NaN on a calibration image: check the model, "
                    "and that the images are normalized as it wants them"
                )
        return super().collect(name_to_arr)


class _One(CalibrationDataReader):
    """One feed: calibrators keep the results of all feeds of a reader in memory."""

    def __init__(self, feed: dict[str, Any]) -> None:
        self._feeds = iter([feed])

    def get_next(self) -> dict[str, Any] | None:
        """The feed, then nothing."""
        return next(self._feeds, None)


def _calibrater(method: str, source: Path, tensors: list[str], folder: Path) -> _Calibrater:
    result = _Calibrater(source, augmented_model_path=str(folder / "augmented.onnx"))
    result.collector = _Collector(
        method=CLIPPING.get(method, "percentile"),
        symmetric=False,
        num_bins=ENTROPY_BINS if method == "entropy" else BINS,
        num_quantized_bins=128,
        percentile=PERCENTILE,
        scenario="same",
    )
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


def _seen(found: tuple[Any, ...], clipped: tuple[Any, ...] | None) -> Seen:
    counts, edges, low, high = found[:4]
    edges = np.asarray(edges, np.float64)
    chosen = None if clipped is None else (float(clipped[0]), float(clipped[1]))
    return Seen(float(low), float(high), np.asarray(counts, np.int64), (edges[1:] + edges[:-1]) / 2, chosen)


@contextlib.contextmanager
def _one_sentence() -> Iterator[None]:
    """ONNX Runtime's exceptions, which have no common base, in our words."""
    try:
        yield
    except (IntaglioError, OSError, MemoryError):
        raise
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"ONNX Runtime cannot run the model on the calibration images: {first}") from error
