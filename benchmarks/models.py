"""Make full-size vision transformers, float and quantized, for benchmarks.

The weights are seeded, with the statistics of trained ones; nothing is downloaded. Run it as
`python benchmarks/models.py --model deit_tiny --form ort_s8s8 -o DIR`; without `--model` and
`--form` it makes everything but `m3vit`. What exists is kept. The environment is that of
`tests/fixtures/requirements-torch_float.txt`; the `nncf` and `pt2e` forms also need that package.

`--model m3vit` makes the mixture of experts of `examples/m3vit`, which has a task for a second input
and forms of its own: `float_dynamo` (every expert on every token), `float_legacy` (a loop over the
experts) and `ort_moe` (the first, quantized but for the routers).
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples" / "m3vit"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "fixtures"))

from common import natural_images, reference_run, stub_torchvision, trained_like, write_atomic

MODELS = {
    "deit_tiny": "deit_tiny_patch16_224",
    "deit_small": "deit_small_patch16_224",
    "vit_base": "vit_base_patch16_224",
}
SIZE = 224
CALIBRATION, EVALUATION = 8, 4
SEED = 2024

Maker = Callable[[str, Path], onnx.ModelProto]


def torch_model(model: str):  # type: ignore[no-untyped-def]
    """Build one timm model with seeded weights."""
    import torch

    stub_torchvision()
    import timm

    torch.set_num_threads(1)
    return trained_like(timm.create_model(MODELS[model], pretrained=False), SEED)


def float_model(model: str, _folder: Path, dynamo: bool) -> onnx.ModelProto:
    """Export the float model."""
    from torch_export import export

    return export(torch_model(model), dynamo, 20 if dynamo else 17, size=SIZE)


def ort_model(model: str, folder: Path, recipe: str) -> onnx.ModelProto:
    """Quantize the float model with ONNX Runtime, by the recipe of a small fixture."""
    from make_ort import quantized, recipes

    small = recipes()[recipe]
    source = "float_legacy" if "legacy" in small.source else "float_dynamo"
    ensure(model, source, folder)
    return quantized(replace(small, source=source), folder, calibration(folder))


def nncf_model(model: str, folder: Path) -> onnx.ModelProto:
    """Quantize the dynamo export with NNCF for transformers."""
    import nncf
    from nncf.parameters import ModelType

    ensure(model, "float_dynamo", folder)
    source = onnx.load(str(folder / "float_dynamo.onnx"))
    name = source.graph.input[0].name
    batches = [{name: batch} for batch in np.split(calibration(folder), CALIBRATION // 4)]
    return nncf.quantize(source, nncf.Dataset(batches), model_type=ModelType.TRANSFORMER)


def pt2e_model(model: str, folder: Path) -> onnx.ModelProto:
    """Quantize with PyTorch's pt2e flow and the XNNPACK quantizer, then export."""
    from make_pt2e import quantized, xnnpack
    from torch_export import export

    converted = quantized(torch_model(model), xnnpack(True), calibration(folder))
    return export(converted, dynamo=True, opset=20, size=SIZE)


FORMS: dict[str, Maker] = {
    "float_dynamo": partial(float_model, dynamo=True),
    "float_legacy": partial(float_model, dynamo=False),
    "ort_s8s8": partial(ort_model, recipe="ort_dynamo_s8s8_pc_sym"),
    "ort_u8s8": partial(ort_model, recipe="ort_dynamo_u8s8_pc"),
    "ort_u8u8": partial(ort_model, recipe="ort_dynamo_u8u8_pt"),
    "ort_s16s8": partial(ort_model, recipe="ort_dynamo_s16s8_pc"),
    "ort_matrix": partial(ort_model, recipe="ort_dynamo_u8s8_pc_matrix"),
    "ort_qoperator": partial(ort_model, recipe="ort_dynamo_qop_u8s8_pc"),
    "ort_legacy_s8s8": partial(ort_model, recipe="ort_legacy_s8s8_pc_sym"),
    "ort_legacy_u8s8_gemm": partial(ort_model, recipe="ort_legacy_u8s8_pc_gemm"),
    "nncf": nncf_model,
    "pt2e": pt2e_model,
}
NEEDS = {"nncf": "nncf", "pt2e": "executorch"}


M3VIT = "m3vit"
M3VIT_SPELLINGS = {"float_dynamo": "dense", "float_legacy": "loop"}


def make_m3vit(folder: Path) -> None:
    """Make M3ViT-Tiny with seeded weights in its three forms, with its images."""
    import export_m3vit
    import quantize_m3vit

    export_m3vit.write_images(folder)
    for form, spelling in M3VIT_SPELLINGS.items():
        path = folder / f"{form}.onnx"
        if not path.exists():
            model = export_m3vit.seeded()
            write_atomic(path, partial(export_m3vit.write, model, spelling))
            print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", flush=True)
    path = folder / "ort_moe.onnx"
    if not path.exists():
        runs = quantize_m3vit.feeds(np.load(folder / "calib.npy"))
        write_atomic(path, lambda target: quantize_m3vit.quantize(folder / "float_dynamo.onnx", target, runs))
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", flush=True)


def calibration(folder: Path) -> np.ndarray:
    """Return the calibration images, saving them and the evaluation images once."""
    for name, count, seed in (("calib", CALIBRATION, 31), ("eval", EVALUATION, 32)):
        path = folder / f"{name}.npy"
        if not path.exists():
            images = natural_images(count, SIZE, seed)
            write_atomic(path, partial(save_array, images))
    return np.asarray(np.load(folder / "calib.npy"))


def save_array(array: np.ndarray, path: Path) -> None:
    """Save one array to an open file, so that numpy adds no suffix to the name."""
    with path.open("wb") as stream:
        np.save(stream, array)


def ensure(model: str, form: str, folder: Path) -> None:
    """Make one form of one model, with its logits on the evaluation images, unless it exists."""
    path, logits = folder / f"{form}.onnx", folder / f"{form}.logits.npy"
    if not path.exists():
        started = time.perf_counter()
        data = FORMS[form](model, folder).SerializeToString()
        write_atomic(path, lambda target: target.write_bytes(data))
        seconds = time.perf_counter() - started
        print(f"{path}: {len(data) / 1e6:.1f} MB in {seconds:.0f} s", flush=True)
    if not logits.exists():
        output = reference_run(onnx.load(str(path)), np.load(folder / "eval.npy"))
        write_atomic(logits, partial(save_array, output))
        report(folder, form, output)


def report(folder: Path, form: str, output: np.ndarray) -> None:
    """Print the signal-to-noise ratio of a quantized model against the float one."""
    reference = folder / "float_dynamo.logits.npy"
    if reference.exists() and form != "float_dynamo":
        exact = np.load(reference)
        noise = max(float(np.mean((output - exact) ** 2)), 1e-30)
        ratio = 10 * np.log10(float(np.mean(exact**2)) / noise)
        print(f"{folder.name} {form}: {ratio:.1f} dB against float", flush=True)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=[*MODELS, M3VIT], nargs="*", default=[*MODELS])
    parser.add_argument("--form", choices=[*FORMS], nargs="*", default=[*FORMS])
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write into")
    options = parser.parse_args()
    failures = 0
    for model in options.model:
        folder = options.out / model
        folder.mkdir(parents=True, exist_ok=True)
        if model == M3VIT:
            make_m3vit(folder)
            continue
        calibration(folder)
        for form in options.form:
            package = NEEDS.get(form)
            if package and importlib.util.find_spec(package) is None:
                print(f"{model} {form}: skipped, {package} is not installed", flush=True)
                continue
            try:
                ensure(model, form, folder)
            except Exception as error:  # report it and go on with the others
                failures += 1
                print(f"{model} {form}: FAILED {type(error).__name__}: {str(error)[:500]}")
    return failures


if __name__ == "__main__":
    sys.exit(main())
