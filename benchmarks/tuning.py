"""`method: tuned` against Intel Neural Compressor's accuracy-aware tuning, on a network that is made hard on purpose.

    edgeproof export examples/cifar10_pretrained.yaml --run RUN
    python benchmarks/tuning.py --run RUN --octaves 3

The network is hard because its channels are put out of balance: where nothing but what scales along stands between
two layers, each channel is multiplied by a power of two where it is made and divided by it where it is read. It stays
the same function, but one scale per activation no longer suits all channels
(Nagel et al., arXiv 1906.04721, the other way round). `--octaves 0` leaves it as it is.

Both tools get the same file, calibration images and validation images, one thread, and the same limit on accuracy.
Ours holds limits on agreement and saliency as well, which the other tool has no notion of; the last column says
whether a file meets the saliency limit on test images, which neither saw.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from foundation.note_parts import Estimate, ScoreNote
from foundation.notes import NeuralCompressorNotes, Notes, TunedNotes, float_layers

if TYPE_CHECKING:
    from onnx import ModelProto

    from calibration_data.prepared import PreparedData
    from foundation.artifacts import OnnxModel
    from stages.search.score import Reference

_SEED = 0
_PEAKS_OF = 512
_CHECKED = 32
_ROUNDS = 60


@dataclass(frozen=True)
class Outcome:
    """What a tool came to.

    Attributes:
        tool: its name.
        seconds: from the float file to the tool's choice.
        cpu_seconds: of all its processes, which says more than `seconds` on a machine that does other things as well.
        files: how many it compiled and scored on the way.
        float_layers: how many layers of its choice compute in float; None where there is no choice.
        score: what it keeps of the float file on test images.
        speedup: over the float file.
        reason: why there is no choice.
    """

    tool: str
    seconds: float
    cpu_seconds: float
    files: int | None
    float_layers: int | None
    score: ScoreNote | None
    speedup: Estimate | None
    reason: str = ""


def unbalance(
    proto: ModelProto, octaves: int, peaks: Callable[[list[str]], dict[str, NDArray[np.float64]]], seed: int
) -> tuple[ModelProto, int]:
    """Multiply channels between two layers by powers of two and divide them again where they are read.

    Args:
        proto: a float graph with names on its nodes; left as it is.
        octaves: exponents are whole numbers drawn evenly from −octaves to octaves. In front of a Clip channels only
            shrink, and only those that stay below its bound on the images of `peaks`.
        peaks: (names of values) → the greatest value of each channel.
        seed: of the draws.

    Returns:
        The same function with other weights, and the number of pairs of layers that were put out of balance.
    """
    import onnx
    from onnx import numpy_helper

    from onnx_files.graph import GraphIndex
    from stages.quantize.recovery.equalization import find_pairs

    result = onnx.ModelProto()
    result.CopyFrom(proto)
    index = GraphIndex.of(result.graph)
    nodes, constants = index.nodes, index.initializers
    generator = np.random.default_rng(seed)
    pairs = find_pairs(result.graph)
    found = peaks([nodes[pair.first].output[0] for pair in pairs if pair.clip])
    for pair in pairs:
        first, second = nodes[pair.first], nodes[pair.second]
        channels = constants[first.input[1]].dims[0]
        exponents = generator.integers(-octaves, octaves, channels, endpoint=True)
        if pair.clip:
            exponents = np.where(found[first.output[0]] < pair.bound, -abs(exponents), 0)
        factors = np.exp2(exponents).astype(np.float32)
        for name in first.input[1:3]:
            values = numpy_helper.to_array(constants[name])
            scaled = values * factors.reshape(-1, *[1] * (values.ndim - 1))
            constants[name].CopyFrom(numpy_helper.from_array(scaled, name))
        _divide_inputs(second, constants[second.input[1]], factors)
    return result, len(pairs)


def _divide_inputs(node: Any, tensor: Any, factors: NDArray[np.float32]) -> None:
    from onnx import numpy_helper

    from onnx_files.graph import attributes_of

    attributes = attributes_of(node)
    values = numpy_helper.to_array(tensor)
    if node.op_type == "Conv" and attributes.get("group", 1) > 1:
        per_group = values.shape[1]
        groups = attributes["group"]
        divided = values.reshape(groups, -1, *values.shape[1:]) / factors.reshape(groups, 1, per_group, 1, 1)
        divided = divided.reshape(values.shape)
    elif node.op_type == "Conv":
        divided = values / factors.reshape(1, -1, 1, 1)
    else:
        rows = values if attributes.get("transB", 0) else values.T
        repeated = np.repeat(factors, rows.shape[1] // len(factors))
        divided = rows / repeated
        divided = divided if attributes.get("transB", 0) else divided.T
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(divided, np.float32), tensor.name))


def hard_network(model: OnnxModel, data: PreparedData, octaves: int, folder: Path) -> tuple[OnnxModel, int]:
    """Write the unbalanced network and make sure that it answers as the float file does."""
    import onnx

    from foundation.artifacts import OnnxModel
    from foundation.files import sha256_of_file
    from onnx_files.preprocessing import Preprocessing
    from onnx_files.probes import channel_peaks, image_batches
    from onnx_files.sessions import open_session, predict

    proto = onnx.load_model(model.path)
    preprocessing = Preprocessing.from_metadata({entry.key: entry.value for entry in proto.metadata_props})
    shown = range(min(_PEAKS_OF, len(data.train)))
    batches = image_batches(proto, data.train.images, shown, preprocessing, proto.graph.input[0].name)
    hard, pairs = unbalance(proto, octaves, lambda names: channel_peaks(proto, names, batches), _SEED)
    path = folder / "fp32.onnx"
    onnx.save_model(hard, path)
    images = data.validation.images[:_CHECKED]
    before, after = (predict(open_session(file, "cpu", 1), images, 8) for file in (model.path, path))
    np.testing.assert_allclose(after, before, atol=0.01 * float(np.abs(before).max()))
    return OnnxModel("fp32", path, sha256_of_file(path), None), pairs


# --- the tools ---


def ours(model: OnnxModel, data: PreparedData, arguments: argparse.Namespace, path: Path) -> OnnxModel:
    """`method: tuned`."""
    from stages.search.study import TunedSettings
    from stages.search.tuned import tune

    settings = TunedSettings(
        method="tuned",
        accuracy_drop=arguments.accuracy_drop,
        agreement=arguments.agreement,
        saliency_spearman=arguments.saliency_spearman,
        trials=arguments.trials,
        minutes=arguments.minutes,
        images=arguments.calibrated,
        scored_images=len(data.validation),
        seed=_SEED,
    )
    return tune(model, path.stem, settings, data, path, "benchmark", lambda done, total: None)


def neural_compressor(model: OnnxModel, data: PreparedData, arguments: argparse.Namespace, path: Path) -> OnnxModel:
    """`method: neural_compressor`, mode tuned."""
    from stages.quantize.neural_compressor.adapter import NeuralCompressorSettings, quantize_with_neural_compressor

    settings = NeuralCompressorSettings(
        method="neural_compressor",
        images=arguments.calibrated,
        tolerable_loss=arguments.accuracy_drop,
        max_trials=arguments.max_trials,
        timeout_s=round(60 * arguments.minutes),
    )
    return quantize_with_neural_compressor(model, path.stem, settings, data, path)


def outcome(
    tool: str, tune: Callable[[], OnnxModel], model: OnnxModel, reference: Reference, image: NDArray[np.uint8]
) -> Outcome:
    """Let a tool choose, and measure its choice on images that it did not see."""
    from foundation.errors import EdgeproofError
    from stages.saliency_twin.twin_file import make_twin
    from stages.search.score import score, speedup

    start, cpu_start = time.perf_counter(), sum(os.times()[:4])
    try:
        chosen, reason = tune(), ""
    except EdgeproofError as error:
        chosen, reason = None, str(error)
    seconds, cpu_seconds = time.perf_counter() - start, sum(os.times()[:4]) - cpu_start
    if chosen is None:
        return Outcome(tool, seconds, cpu_seconds, None, None, None, None, reason)
    found = score(reference, chosen.path, make_twin(chosen.path, None, None, None))
    faster = speedup(model.path, chosen.path, image, _ROUNDS)
    in_float = float_layers(chosen.notes) or ()
    return Outcome(tool, seconds, cpu_seconds, compiled_files(chosen.notes), len(in_float), found, faster)


def compiled_files(notes: Notes) -> int | None:
    """Return how many files a tool compiled before it chose."""
    if isinstance(notes, TunedNotes):
        return len(notes.search) + len(notes.sensitivity)
    return notes.tuning.trials if isinstance(notes, NeuralCompressorNotes) and notes.tuning else None


# --- the comparison ---


def main() -> None:
    """Tune with both, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, required=True, help="folder of a run that has been exported")
    parser.add_argument("--octaves", type=int, default=3, help="channels are scaled by up to 2 to this power")
    parser.add_argument("--calibrated", type=int, default=128, help="number of calibration images")
    parser.add_argument("--test", type=int, default=2000, help="test images to measure the choices on, at most")
    parser.add_argument("--explained", type=int, default=256, help="of these, how many are explained")
    parser.add_argument("--accuracy-drop", type=float, default=0.01)
    parser.add_argument("--agreement", type=float, default=0.97)
    parser.add_argument("--saliency-spearman", type=float, default=0.8)
    parser.add_argument("--trials", type=int, default=24, help="of ours")
    parser.add_argument("--max-trials", type=int, default=100, help="of Neural Compressor")
    parser.add_argument("--minutes", type=float, default=30.0, help="for each")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        compare(arguments, Path(folder))


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    """Make the network hard, let both tune it, and print what each came to."""
    import onnx

    from calibration_data.prepared_folder import read_prepared
    from foundation.artifacts import OnnxModel
    from foundation.run_folder import RunFolder
    from onnx_files.graph import layers
    from stages.saliency_twin.twin_file import make_twin
    from stages.search.score import reference_answers

    run = RunFolder(arguments.run)
    data = read_prepared(run.data)
    model, pairs = hard_network(OnnxModel.read(run.fp32), data, arguments.octaves, folder)
    total = len(layers(onnx.load_model(model.path), model))
    reference = reference_answers(
        model.path,
        make_twin(model.path, folder / "fp32.saliency.onnx", None, None),
        data.test, data.task, True, arguments.test, arguments.explained, _SEED,
    )  # fmt: skip
    image = data.test.images[0]
    outcomes = []
    for number, (tool, write) in enumerate({"edgeproof": ours, "Neural Compressor": neural_compressor}.items()):
        tune = partial(write, model, data, arguments, folder / f"tool_{number}.onnx")
        outcomes.append(outcome(tool, tune, model, reference, image))
    print(
        f"{arguments.run.name}: {pairs} pairs of layers unbalanced by up to 2^±{arguments.octaves}; {total} layers; "
        f"{arguments.calibrated} calibration, {len(data.validation)} validation and {len(reference.images)} test "
        f"images; limits: accuracy −{100 * arguments.accuracy_drop:g} points, agreement {arguments.agreement:g}, "
        f"saliency ρ {arguments.saliency_spearman:g}; load {os.getloadavg()[0]:.1f}"
    )
    print(table(outcomes, total, arguments.saliency_spearman))
    if arguments.json:
        arguments.json.write_bytes(TypeAdapter(list[Outcome]).dump_json(outcomes, indent=2) + b"\n")


def table(outcomes: list[Outcome], layers: int, limit: float) -> str:
    """Return the outcomes as Markdown."""
    names = [
        "tool",
        "s",
        "CPU s",
        "files",
        "float layers",
        "fp32 / int8",
        "accuracy lost, points",
        "agreement",
        "saliency ρ",
    ]
    lines = [f"| {' | '.join([*names, f'ρ ≥ {limit:g}'])} |", f"|{' --- |' * (len(names) + 1)}"]
    for row in outcomes:
        if row.score is None or row.speedup is None or row.score.saliency_spearman is None:
            cells = [row.tool, f"{row.seconds:.0f}", f"{row.cpu_seconds:.0f}", f"no file: {row.reason}"]
            lines.append(f"| {' | '.join(cells)} |{'  |' * (len(names) + 1 - len(cells))}")
            continue
        score = row.score
        cells = [
            row.tool,
            f"{row.seconds:.0f}",
            f"{row.cpu_seconds:.0f}",
            str(row.files),
            f"{row.float_layers} of {layers}",
            _with_interval(row.speedup, 1, 2),
            "–" if score.accuracy_drop is None else _with_interval(score.accuracy_drop, 100, 2),
            _with_interval(score.agreement, 1, 3),
            _with_interval(score.saliency_spearman, 1, 3),
            "yes" if score.saliency_spearman.value >= limit else "no",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _with_interval(estimate: Estimate, factor: float, digits: int) -> str:
    low, high = estimate.ci95 or (estimate.value,) * 2
    return f"{factor * estimate.value:.{digits}f} ({factor * low:.{digits}f} to {factor * high:.{digits}f})"


if __name__ == "__main__":
    main()
