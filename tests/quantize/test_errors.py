"""What is refused, in one sentence, with nothing written."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from intaglio.errors import (
    ArtifactError,
    InputError,
    IntaglioError,
    ModelError,
    UnsupportedError,
)
from intaglio.quantize import quantize

Images = NDArray[np.float32]


def refused(
    kind: type[IntaglioError], sentence: str, model: Path, images: object, out: Path, **more: object
) -> None:
    with pytest.raises(kind, match=sentence) as caught:
        quantize(model, images, out, **more)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert not out.exists()
    assert not list(out.parent.glob(".*")) if out.parent.is_dir() else True


@pytest.fixture
def model(fixtures: Path) -> Path:
    return fixtures / "timm_legacy_op17.onnx"


def test_images_that_do_not_fit(model: Path, images: Images, tmp_path: Path) -> None:
    out = tmp_path / "q.onnx"
    refused(InputError, "no calibration images", model, images[:0], out)
    refused(InputError, "must be float32", model, images.astype(np.float64), out)
    refused(InputError, "must be float32", model, (images * 9).astype(np.uint8), out)
    refused(InputError, r"\[6, 3, 31, 32\] do not fit.*\[n, 3, 32, 32\]", model, images[:, :, 1:], out)
    refused(InputError, "do not fit", model, images[0], out)
    refused(InputError, "one value only", model, images * 0, out)
    for value in (np.nan, np.inf):
        broken = images.copy()
        broken[1, 0, 0, 0] = value
        refused(InputError, "NaN or infinity", model, broken, out)


def test_choices_that_do_not_exist(model: Path, images: Images, tmp_path: Path) -> None:
    out = tmp_path / "q.onnx"
    refused(InputError, "method must be one of mse, minmax", model, images, out, method="best")
    refused(InputError, "activations must be one of auto, int8", model, images, out, activations="int4")


def test_models_that_cannot_be_quantized(fixtures: Path, images: Images, tmp_path: Path) -> None:
    out = tmp_path / "q.onnx"
    refused(ModelError, "no such file", tmp_path / "none.onnx", images, out)
    refused(InputError, "quantized already; use --complete", fixtures / "nncf_dynamo.onnx", images, out)
    refused(UnsupportedError, "DynamicQuantizeLinear", fixtures / "ort_dynamic_s8.onnx", images, out)


def test_a_place_that_is_not_there(model: Path, images: Images, tmp_path: Path) -> None:
    refused(ArtifactError, "there is no folder", model, images, tmp_path / "none" / "q.onnx")
    with pytest.raises(ArtifactError, match="it is a folder"):
        quantize(model, images[:1], tmp_path)


def test_a_dynamic_image_size(model: Path, images: Images, tmp_path: Path) -> None:
    changed = onnx.load(model)
    changed.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    onnx.save(changed, tmp_path / "dynamic.onnx")
    refused(UnsupportedError, "dynamic shape", tmp_path / "dynamic.onnx", images, tmp_path / "q.onnx")


def damaged(model: Path, to: Path, suffix: str, value: float) -> Path:
    """`model` with one element of one of its constants replaced."""
    changed = onnx.load(model)
    tensor = next(tensor for tensor in changed.graph.initializer if tensor.name.endswith(suffix))
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] = value
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    onnx.save(changed, to)
    return to


def test_numbers_that_are_not_finite(model: Path, images: Images, tmp_path: Path) -> None:
    out = tmp_path / "q.onnx"
    weight = damaged(model, tmp_path / "weight.onnx", "patch_embed.proj.weight", np.nan)
    refused(UnsupportedError, "which holds nan", weight, images, out)
    bias = damaged(model, tmp_path / "bias.onnx", "patch_embed.proj.bias", np.inf)
    refused(UnsupportedError, "which holds inf", bias, images, out)
