r"""Speed of mixtures of experts on the CPU: one layer by its routing, and a whole model against ONNX Runtime.

    python benchmarks/moe.py layer
    python benchmarks/models.py --model m3vit --form ort_moe -o build/models
    python benchmarks/moe.py model build/models/m3vit/ort_moe.onnx --dynamic \
        --float build/models/m3vit/float_dynamo.onnx build/models/m3vit/float_legacy.onnx

`layer` times one mixture (default: M3ViT-Tiny's: 129 tokens, 192 wide, 16 experts of 384, top 2) in one library, whose
input is the gate's logits, under forced routings: the same work spread over few or many experts, mixtures of more
experts of which as many are used, and tokens that take more experts each. `model` runs the compiled model and ONNX
Runtime on the same image and task. Rounds are interleaved, figures are medians over rounds; the clock is as in
`benchmarks/cpu.py`.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort
from cpu import CLOCKS, compiled_model, image_for, measure, report
from numpy.typing import NDArray

from intaglio.backends.cpu import build
from intaglio.backends.native import NativeModel, ProgramIO
from intaglio.ops import Built, Grid, moe
from intaglio.ops.moe import Expert, Projection
from intaglio.program import Program, Step, Tensor

Contender = Callable[[], object]
Logits = NDArray[np.int16]


def main() -> None:
    """Run `layer` or `model`."""
    options = _arguments()
    (_layer if options.what == "layer" else _model)(options)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_subparsers(dest="what", required=True)
    layer = what.add_parser("layer")
    sizes = {"tokens": 129, "dim": 192, "hidden": 384, "experts": 16, "k": 2}
    for name, value in sizes.items():
        layer.add_argument(f"--{name}", type=int, default=value)
    model = what.add_parser("model")
    model.add_argument("model", type=Path, help="QDQ model, for both")
    for name, what_it_is in (("float", "float models"), ("int8", "other quantized forms of it")):
        model.add_argument(
            f"--{name}", type=Path, nargs="*", default=[], help=f"{what_it_is}, for ONNX Runtime only"
        )
    model.add_argument("--dynamic", action="store_true", help="also quantize the float models dynamically")
    model.add_argument("--task", type=int, default=0)
    for each in (layer, model):
        each.add_argument("--threads", type=int, default=1)
        each.add_argument("--rounds", type=int, default=50)
        each.add_argument("--clock", choices=CLOCKS, default="cpu")
        each.add_argument("--json", action="store_true")
    return parser.parse_args()


# --- one layer ----------------------------------------------------------------------------------------------------


def _layer(options: argparse.Namespace) -> None:
    counts = [n for n in (1, 2, 4, 8, 16, 32) if options.k <= n <= options.experts]
    more = [options.experts * factor for factor in (1, 2, 4)]
    tops = [k for k in range(1, 5) if k <= options.experts]
    with tempfile.TemporaryDirectory() as folder:
        wider = {n: _library(options, n, options.k, Path(folder) / f"of {n}") for n in more}
        deeper = {k: _library(options, options.experts, k, Path(folder) / f"top {k}") for k in tops}
        same, used = wider[options.experts], min(options.experts, 4)
        contenders = {f"{n} of {options.experts}": _run(same, options.k, n) for n in counts}
        contenders |= {f"{used} of {n}": _run(wider[n], options.k, used) for n in more[1:]}
        contenders |= {f"{used} of {options.experts}, top {k}": _run(deeper[k], k, used) for k in tops}
        times = measure(contenders, options.rounds, CLOCKS[options.clock])
    rows = {name: 1e3 * statistics.median(values) for name, values in times.items()}
    if options.json:
        print(json.dumps({"layer": vars(options), "median_ms": rows}))
        return
    choices = options.tokens * options.k
    print(
        f"{options.tokens} tokens, {options.dim} wide, experts of {options.hidden}, top {options.k} ({choices} rows), "
        f"{options.threads} thread(s), {options.clock} time, {options.rounds} rounds, {platform.machine()}"
    )
    for name, median in rows.items():
        print(f"active experts {name:16s} median {median:7.3f} ms")


def _library(options: argparse.Namespace, experts: int, k: int, folder: Path) -> NativeModel:
    """A mixture whose input is the logits, int16 [tokens, experts]; x is a constant."""
    rng = np.random.default_rng(0)
    built = _built(options, experts, k, rng)
    x = rng.integers(-128, 128, (options.tokens, options.dim)).astype(np.int8)
    constants = [x, *built.constants]
    tensors = [Tensor("logits", (options.tokens, experts), "int16")]
    tensors += [Tensor(f"c{i}", c.shape, str(c.dtype), data=c) for i, c in enumerate(constants)]
    tensors.append(Tensor("out", (options.tokens, options.dim), "int8"))
    inputs = ("c0", "logits", *(f"c{i}" for i in range(1, len(constants))))
    step = Step("moe", "moe", inputs, "out", built.attrs)
    program = Program("layer", {t.name: t for t in tensors}, [step], "logits", "out")
    report = build(program, folder, threads=options.threads)
    return NativeModel(report["library"], ProgramIO.of(program))


def _built(options: argparse.Namespace, experts: int, k: int, rng: np.random.Generator) -> Built:
    unit, hidden = Grid(1 / 127, 0, "int8"), Grid(4 / 127, 0, "int8")

    def projection(channels: int, depth: int) -> Projection:
        return Projection(rng.integers(-127, 128, (channels, depth)), 1 / (127 * np.sqrt(depth)))

    each = [
        Expert(
            projection(options.hidden, options.dim), hidden, projection(options.dim, options.hidden),
            lambda v: np.maximum(v, 0.0), unit,
        )
        for _ in range(experts)
    ]  # fmt: skip
    return moe.parameters(unit, Grid(1e-4, 0, "int16"), each, unit, unit, k=k, normalize=True)


def _run(model: NativeModel, k: int, active: int) -> Contender:
    logits = routing(*model.io.input.shape, k, active)
    return lambda: model.run(logits)


def routing(tokens: int, experts: int, k: int, active: int) -> Logits:
    """Logits that send every token to k of the first `active` experts, all of them equally often (k <= active)."""
    logits = np.full((tokens, experts), -30000, np.int16)
    rows = np.arange(tokens)
    for slot in range(k):
        logits[rows, (rows * k + slot) % active] = 1000 - slot
    return logits


# --- a whole model ------------------------------------------------------------------------------------------------


def _model(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        program, native = compiled_model(options.model, Path(folder) / "artifact", options.threads)
        program.check_task(options.task)
        image = image_for(program)
        contenders: dict[str, Contender] = {"intaglio": _ours(program, native, image, options.task)}
        dynamic = _dynamic(options.float, Path(folder)) if options.dynamic else []
        for path in (options.model, *options.int8, *dynamic):
            contenders[f"ORT int8 {path.stem}"] = _onnxruntime(path, image, options)
        for path in options.float:
            contenders[f"ORT fp32 {path.stem}"] = _onnxruntime(path, image, options)
        rounds = measure(contenders, options.rounds, CLOCKS[options.clock])
    report(rounds, options)


def _ours(program: Program, native: NativeModel, image: NDArray[np.float32], task: int) -> Contender:
    tensor = program.tensors[program.input]
    assert tensor.scale is not None
    quantized = Grid(tensor.scale, tensor.zero_point, tensor.dtype).quantize(image)
    return lambda: native.run(quantized, task)


def _onnxruntime(model: Path, image: NDArray[np.float32], options: argparse.Namespace) -> Contender:
    """Default optimizations; a second input is the task."""
    session = _session(model, options.threads)
    names: Sequence[ort.NodeArg] = session.get_inputs()
    feed = {
        value.name: image if value.type == "tensor(float)" else np.full(value.shape, options.task, np.int64)
        for value in names
    }
    return lambda: session.run(None, feed)


def _session(model: Path, threads: int) -> ort.InferenceSession:
    """With s8 activations kept where rewriting them to u8 makes nodes that ONNX Runtime itself refuses (opset 21)."""
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.log_severity_level = 4
    try:
        return ort.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
    except Exception:  # its exceptions have no common base but Exception
        settings.add_session_config_entry("session.qdqisint8allowed", "1")
        return ort.InferenceSession(model, settings, providers=["CPUExecutionProvider"])


def _dynamic(models: Sequence[Path], folder: Path) -> list[Path]:
    """The float models with int8 weights and activations that ONNX Runtime quantizes as it runs."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    made = []
    for path in models:
        made.append(folder / f"{path.stem}_dynamic.onnx")
        quantize_dynamic(path, made[-1], weight_type=QuantType.QInt8, per_channel=True)
    return made


if __name__ == "__main__":
    main()
