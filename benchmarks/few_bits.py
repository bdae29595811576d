"""What few bits lose of a trained network without training it again, and how much of that recovery wins back.

    edgeproof export examples/mnist.yaml --run RUN
    python benchmarks/few_bits.py RUN [RUN ...]

Each run's float file is rounded to weights of 8 or 4 bits and activations of 8 or 4: by the nearest integers, with
corrected biases, with compensated rounding, and with that and reconstruction. All are calibrated on the same training
images with ranges of least squared error. Compared with the float file on test images: accuracy lost, agreement, the
SQNR of the logits, and how like its gradient maps theirs are. Lost power is the noise beside that of the nearest
integers: a third is the goal.

Weights of 4 bits are those of `static` with `bits: 4`. No kernel takes activations of 4 bits, so they are simulated
in all layers but the first: a step of a fifteenth of the range, and a Clip that keeps the integers within 0…15. Where
this processor's sums of uint8 by int8 saturate (x86 without VNNI), weights of 8 bits take 7 of them.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from onnx import ModelProto

    from calibration_data.prepared import PreparedData
    from foundation.artifacts import OnnxModel
    from foundation.note_parts import ScoreNote
    from stages.search.score import Reference

RECOVERY: dict[str, dict[str, Any]] = {
    "nearest": {},
    "bias": {"bias_correction": True},
    "rounding": {"compensated_rounding": {}},
    "reconstruction": {"compensated_rounding": {}, "reconstruction": {}},
}
WIDTHS = {"W8A8": (8, 8), "W4A8": (4, 8), "W4A4": (4, 4)}
"""Bits of weights and of activations."""


@dataclass(frozen=True)
class Inputs:
    """A run's float file, its images, and what the float file answers."""

    model: OnnxModel
    data: PreparedData
    reference: Reference
    folder: Path
    calibrated: int


def rounded(inputs: Inputs, weight_bits: int, activation_bits: int, steps: Mapping[str, Any]) -> ModelProto:
    """Return the float file in integers of some widths."""
    from calibration_data.sampling import choose_calibration_images
    from foundation.processor import choose_integer_types, detect_cpu
    from onnx_files.image_input import input_name_of, preprocessing_of
    from onnx_files.loading import load
    from onnx_files.probes import image_batches
    from stages.quantize.calibration.ranges import Calibration, as_tensors_data, find_ranges
    from stages.quantize.methods.static import StaticSettings, quantized_operators, write_integers
    from stages.quantize.recovery.steps import RecoverySettings, first_layer, recover

    proto, data = load(inputs.model), inputs.data
    chosen = choose_calibration_images(data, inputs.calibrated, 0).tolist()
    preprocessing = preprocessing_of(proto, inputs.model)
    name = input_name_of(proto, inputs.model, data.train.images.shape[1:])
    settings = StaticSettings.model_validate({"bits": weight_bits})
    image = first_layer(proto).input[0]

    def ranges(graph: ModelProto) -> Any:
        return as_tensors_data(
            find_ranges(
                graph,
                data.train.images,
                preprocessing,
                name,
                quantized_operators(),
                Calibration("mse"),
                chosen=chosen,
            )
        )

    def write(graph: ModelProto, found: Any, options: Mapping[str, Any]) -> ModelProto:
        types = choose_integer_types(detect_cpu(), "uint8", "int8", "auto")
        written = write_integers(graph, settings, types, found, options)
        return written if activation_bits == 8 else with_coarse_activations(written, image)

    batches = image_batches(proto, data.train.images, chosen, preprocessing, name)
    recovered = recover(proto, RecoverySettings.model_validate(steps), ranges, write, batches, per_channel=True)
    return write(recovered.model, recovered.ranges, recovered.options)


def with_coarse_activations(quantized: ModelProto, image: str) -> ModelProto:
    """Return a graph in QDQ form whose activations take 16 steps in place of 256, all but the image.

    Args:
        quantized: its activations are uint8.
        image: name of what the first layer reads.
    """
    import onnx
    from onnx import helper, numpy_helper

    coarse = onnx.ModelProto()
    coarse.CopyFrom(quantized)
    constants = {tensor.name: tensor for tensor in coarse.graph.initializer}
    ends = (("coarse/lowest", 0), ("coarse/greatest", 15))
    coarse.graph.initializer.extend(numpy_helper.from_array(np.array(end, np.uint8), name) for name, end in ends)

    def change(name: str, values: Any) -> None:
        constants[name].CopyFrom(numpy_helper.from_array(np.asarray(values), name))

    def value(name: str) -> Any:
        return numpy_helper.to_array(constants[name])

    makers = [node for node in quantized.graph.node if node.op_type == "QuantizeLinear" and node.input[0] != image]
    for scale, zero in dict.fromkeys((node.input[1], node.input[2]) for node in makers):
        change(scale, value(scale) * np.float32(17))
        change(zero, np.rint(value(zero) / 17).astype(np.uint8))
    dequantized = {node.output[0]: node for node in quantized.graph.node if node.op_type == "DequantizeLinear"}
    for node in quantized.graph.node:
        bias = dequantized.get(node.input[2]) if node.op_type in ("Conv", "Gemm") and len(node.input) > 2 else None
        read = dequantized.get(node.input[0]) if bias else None
        if bias is not None and read is not None and read.input[1] != f"{image}_scale":
            # ONNX Runtime takes a bias to have the steps of the products that it is added to.
            change(bias.input[1], value(bias.input[1]) * np.float32(17))
            change(bias.input[0], np.rint(value(bias.input[0]) / 17).astype(np.int32))
    del coarse.graph.node[:]
    for node in quantized.graph.node:
        copy = coarse.graph.node.add()
        copy.CopyFrom(node)
        if node in makers:
            copy.output[0] = f"{node.output[0]}/coarse"
            clip = helper.make_node("Clip", [copy.output[0], ends[0][0], ends[1][0]], [node.output[0]])
            coarse.graph.node.append(clip)
    return coarse


def scored(inputs: Inputs, proto: ModelProto) -> ScoreNote:
    """Return what a graph keeps of the float file's answers and maps."""
    from stages.search.candidates import write_twin
    from stages.search.score import score

    path = inputs.folder / "rounded.onnx"
    path.write_bytes(proto.SerializeToString(deterministic=True))
    return score(inputs.reference, path, write_twin(path, inputs.folder / "rounded.saliency.onnx", inputs.data))


def inputs_of(run: Path, folder: Path, calibrated: int, test: int) -> Inputs:
    """Read an exported run, and answer and explain its test images with the float file."""
    from calibration_data.prepared_folder import read_prepared
    from foundation.artifacts import OnnxModel
    from foundation.run_folder import RunFolder
    from stages.search.candidates import write_twin
    from stages.search.score import reference_answers

    data, model = read_prepared(RunFolder(run).data), OnnxModel.read(RunFolder(run).fp32)
    twin = write_twin(model.path, folder / "float.saliency.onnx", data)
    reference = reference_answers(model.path, twin, data.test, data.task, True, test, min(test, 64), 0)
    return Inputs(model, data, reference, folder, min(calibrated, len(data.train)))


def main() -> None:
    """Round, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="folders of runs that have been exported")
    parser.add_argument("--calibrated", type=int, default=128, help="number of calibration images")
    parser.add_argument("--test", type=int, default=2000, help="number of test images, at most")
    parser.add_argument("--widths", nargs="+", choices=WIDTHS, default=tuple(WIDTHS), help="bits to round to")
    arguments = parser.parse_args()
    print(
        "| network | bits | recovery | accuracy lost, points | agreement, % | SQNR, dB | lost power | saliency, ρ |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for run in arguments.runs:
        with TemporaryDirectory() as folder:
            inputs = inputs_of(run, Path(folder), arguments.calibrated, arguments.test)
            for weight_bits, activation_bits in (WIDTHS[width] for width in arguments.widths):
                nearest = 0.0
                for name, steps in RECOVERY.items():
                    found = scored(inputs, rounded(inputs, weight_bits, activation_bits, steps))
                    nearest = nearest or found.logits_sqnr_db.value
                    print(
                        row(
                            f"{run.name}, n = {found.agreement.n}", weight_bits, activation_bits, name, found, nearest
                        )
                    )


def row(network: str, weights: int, activations: int, recovery: str, found: ScoreNote, nearest_db: float) -> str:
    """Return a file's row of the table, as Markdown."""
    assert found.accuracy_drop is not None
    assert found.saliency_spearman is not None
    cells = [network, f"W{weights}A{activations}", recovery]
    for note, factor, digits in (
        (found.accuracy_drop, 100, 2), (found.agreement, 100, 1), (found.logits_sqnr_db, 1, 1),
    ):  # fmt: skip
        cells.append(f"{factor * note.value:.{digits}f}")
        if note.ci95:
            cells[-1] += " ({:.{d}f} to {:.{d}f})".format(*(factor * end for end in note.ci95), d=digits)
    cells.append(f"{10 ** ((nearest_db - found.logits_sqnr_db.value) / 10):.2f}")
    return f"| {' | '.join([*cells, f'{found.saliency_spearman.value:.3f}'])} |"


if __name__ == "__main__":
    main()
