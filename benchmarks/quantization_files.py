"""Int8 files: accuracy kept and latency against ONNX Runtime's `quantize_static`, Intel Neural Compressor and NNCF.

    edgeproof export examples/cifar10_pretrained.yaml --run RUN
    python benchmarks/quantization_files.py --run RUN --nncf-python NNCF/bin/python
    python benchmarks/quantization_files.py --network mobilenet_v2 --images-folder FOLDER --calibrated 32 --test 64

Every tool gets the same float file and the same calibration images, and all files answer the same test images on one
thread. With `--network` the weights are initial ones, so there is no accuracy: agreement with the float file and the
logits' SQNR stand for it. Timed are all files of the other tools and of ours the one with the greatest SQNR on
validation images (calibration images with `--network`): one run, each file in a process of its own, blocks of queries
in rotating order, ratios of one round. The normalisation stays in float for every tool but in the rows called
`defaults` (`quantization_tools.py`). Neural Compressor is measured where `edgeproof doctor
--create-neural-compressor` has been run, NNCF where its Python is given (`pip install nncf onnx==1.18 onnxruntime`).
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from quantization import write_images, write_network
from quantization_tools import OURS, RECOVERY, File, Inputs, files

if TYPE_CHECKING:
    from calibration_data.prepared import PreparedData
    from foundation.artifacts import OnnxModel

SPEED_UP = {"resnet18": 3.0, "mobilenet_v2": 2.0}
"""Float latency over int8 latency that this project holds itself to, on one thread with VNNI at 224 px."""
_PROCESSES = 5
"""Fresh processes of each file before it is decided how many more there should be."""
_HELD = 256


# --- networks and images ---


def trained(arguments: argparse.Namespace) -> tuple[OnnxModel, PreparedData, NDArray[np.int64]]:
    """Return a run's float file, its images, and which of the test images are asked."""
    from calibration_data.prepared_folder import read_prepared
    from foundation.artifacts import OnnxModel
    from foundation.run_folder import RunFolder

    run = RunFolder(arguments.run)
    data = read_prepared(run.data)
    asked = np.random.default_rng(0).permutation(len(data.test))[: arguments.test]
    return OnnxModel.read(run.fp32), data, np.sort(asked)


def initial(arguments: argparse.Namespace, folder: Path) -> tuple[OnnxModel, PreparedData, NDArray[np.int64]]:
    """Return a network with initial weights at 224 px, with a folder's pictures or generated ones."""
    from calibration_data.image_folder import UnlabelledImages, unlabelled_data
    from foundation.artifacts import OnnxModel
    from foundation.files import sha256_of_file
    from onnx_files.preprocessing import Preprocessing

    path = folder / "images.npy"
    count = arguments.calibrated + arguments.test
    write_images(arguments.images_folder, count, path)
    network = write_network(arguments.network, path, folder)
    pixels = np.load(path)
    names = tuple(f"image {number}" for number in range(count))
    model = OnnxModel("fp32", network, sha256_of_file(network), None)
    preprocessing = Preprocessing("uint8", (0.0,), (1.0,), pixels.shape[-1])  # the file has its own
    both = [
        unlabelled_data(UnlabelledImages(pixels[part], names[part], names[part]), preprocessing)
        for part in (slice(arguments.calibrated), slice(arguments.calibrated, None))
    ]
    data = replace(both[0], test=both[1].train)
    return model, data, np.arange(arguments.test)


# --- what the files keep ---


def kept(file: File, inputs: Inputs, asked: NDArray[np.int64], labelled: bool, float_logits: Any) -> dict[str, Any]:
    """Return a file's size, SQNR, agreement, and where there are labels its accuracy and what it lost."""
    from onnx_files.sessions import open_session, predict
    from stages.validate.intervals.means import mean_estimate
    from stages.validate.intervals.proportions import wilson_interval
    from stages.validate.metrics import logits_sqnr_db

    assert file.model is not None
    session = open_session(file.model.path, "cpu", 1)
    held, test = float_logits
    logits = predict(session, inputs.data.test.images[asked], 32)
    own = predict(session, chosen_by(inputs), 32)
    labels, n = inputs.data.test.labels[asked], len(asked)
    row: dict[str, Any] = {
        "tool": file.tool,
        "options": file.options,
        "mb": file.model.size_bytes / 1e6,
        "chosen_by_sqnr_db": float(logits_sqnr_db(own, held, np.ones((1, len(own))))[0]),
        "sqnr_db": float(logits_sqnr_db(logits, test, np.ones((1, n)))[0]),
        "agreement": float(np.mean(logits.argmax(1) == test.argmax(1))),
    }
    if labelled:
        right = logits.argmax(1) == labels
        lost = (test.argmax(1) == labels).astype(float) - right
        row["accuracy"] = (float(right.mean()), *wilson_interval(float(right.sum()), n))
        difference = mean_estimate(-lost, 2000, 0, np.arange(n), "identity")
        row["difference"] = (difference.value, *(difference.ci95 or (difference.value, difference.value)))
    return row


def chosen_by(inputs: Inputs) -> NDArray[np.uint8]:
    """Return the images that tell a tool's best file, which are no test images."""
    return inputs.data.validation.images[:_HELD] if len(inputs.data.validation) else inputs.images


def float_answers(inputs: Inputs, asked: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the float file's logits for the images that choose between files, and for the test images."""
    from onnx_files.sessions import open_session, predict

    session = open_session(inputs.model.path, "cpu", 1)
    return predict(session, chosen_by(inputs), 32), predict(session, inputs.data.test.images[asked], 32)


# --- latency ---


def latencies(models: list[OnnxModel], image: NDArray[np.uint8], rounds: int, queries: int) -> dict[str, Any]:
    """Time files side by side; return from each one's variant to its times in ms [processes, rounds, queries]."""
    from foundation.progress import no_progress
    from stages.validate.latency_settings import LatencySettings
    from stages.validate.latency_turns import Place, time_in_turns

    settings = LatencySettings(processes=_PROCESSES, rounds=rounds, queries_per_round=queries)
    timings = time_in_turns(models, image, Place("cpu", 1, 1), settings, no_progress)
    return {
        variant: timing.reason if timing.durations_ms is None else timing.durations_ms
        for variant, timing in timings.items()
    }


def _paired(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> tuple[float, float, float]:
    from stages.validate.latency_intervals import geometric_estimate, log_ratios

    estimate = geometric_estimate(log_ratios(numerator, denominator), _PROCESSES)
    assert estimate.ci95 is not None
    return estimate.value, *estimate.ci95


# --- the comparison ---


def main() -> None:
    """Compile, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--run", type=Path, help="folder of a run that has been exported: a trained network")
    source.add_argument("--network", help="initial weights at 224 px")
    parser.add_argument("--images-folder", type=Path, help="pictures (--network); generated endoscopy without")
    parser.add_argument("--calibrated", type=int, default=128, help="number of calibration images")
    parser.add_argument("--test", type=int, default=2000, help="number of test images, at most")
    methods = ("minmax", "percentile", "entropy", "mse")
    parser.add_argument("--methods", nargs="+", choices=methods, default=list(methods), help="ours")
    parser.add_argument("--recovery", nargs="+", choices=tuple(RECOVERY), default=list(RECOVERY), help="ours")
    parser.add_argument("--onnxruntime-methods", nargs="+", default=["MinMax", "Percentile", "Entropy"])
    parser.add_argument("--nncf-python", type=Path, help="of an environment with NNCF")
    parser.add_argument("--rounds", type=int, default=7, help="per process")
    parser.add_argument("--queries", type=int, default=30, help="per round and file")
    parser.add_argument("--keep", type=Path, help="folder to leave the files in")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        compare(arguments, folder)


def compare(arguments: argparse.Namespace, folder: Path) -> None:
    """Compile with every tool, measure what the files keep, and time the best of each."""
    import onnx

    from calibration_data.sampling import choose_calibration_images
    from onnx_files.graph import normalisation_nodes

    model, data, asked = trained(arguments) if arguments.run else initial(arguments, folder)
    chosen = choose_calibration_images(data, arguments.calibrated, 0)
    normalisation = tuple(normalisation_nodes(onnx.load_model(model.path)))
    inputs = Inputs(model, data, chosen, normalisation, arguments.nncf_python)
    float_logits = float_answers(inputs, asked)
    rows: list[dict[str, Any]] = []
    failed: list[dict[str, str]] = []
    compiled: list[tuple[dict[str, Any], OnnxModel]] = []
    for file in (File("fp32", "", model), *files(inputs, arguments, folder)):
        if file.model is None:
            failed.append({"tool": file.tool, "options": file.options, "reason": file.reason})
        else:
            rows.append(kept(file, inputs, asked, bool(arguments.run), float_logits))
            compiled.append((rows[-1], file.model))
    own = max(
        (entry for entry in compiled if entry[0]["tool"] == OURS), key=lambda entry: entry[0]["chosen_by_sqnr_db"]
    )
    timed = [entry for entry in compiled if entry[0]["tool"] != OURS or entry is own]
    load = os.getloadavg()[0]
    found = latencies([entry for _, entry in timed], data.test.images[asked[0]], arguments.rounds, arguments.queries)
    for row, entry in timed:
        milliseconds = found[entry.variant]
        if isinstance(milliseconds, str):
            failed.append({"tool": row["tool"], "options": row["options"], "reason": milliseconds})
            continue
        row["latency_ms"] = float(np.median(milliseconds))
        row["speed_up"] = _paired(found["fp32"], milliseconds)
        row["times_ours"] = _paired(milliseconds, found[own[1].variant])
    name = f"{arguments.run.name if arguments.run else arguments.network}, {data.test.images.shape[-1]} px"
    print(
        f"{name}: {len(chosen)} calibration images, {len(asked)} test images, "
        f"load {load:.1f} to {os.getloadavg()[0]:.1f}"
    )
    print(table(rows, bool(arguments.run)))
    for entry in failed:
        print(f"{entry['tool']} {entry['options']}: not measured ({entry['reason']})")
    bound = SPEED_UP.get(arguments.network or "")
    if bound:
        value, low, high = own[0]["speed_up"]
        print(f"{'✓' if value >= bound else '✗'} float over int8 ≥ {bound:g}: {value:.2f} ({low:.2f} to {high:.2f})")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows, "not_measured": failed}, indent=2) + "\n")


def table(rows: list[dict[str, Any]], labelled: bool) -> str:
    """Return the rows as Markdown."""
    names = ["tool", "options", "accuracy (95 %)", "− fp32 (95 %)"] if labelled else ["tool", "options"]
    names += ["SQNR dB", "agreement", "MB", "ms", "fp32 / int8 (95 %)", "× ours (95 %)"]
    lines = [f"| {' | '.join(names)} |", f"|{' --- |' * len(names)}"]
    for row in rows:
        cells = [row["tool"], row["options"]]
        if labelled:
            value, low, high = (100 * number for number in row["accuracy"])
            cells.append(f"{value:.2f} ({low:.2f} to {high:.2f})")
            value, low, high = (100 * number for number in row["difference"])
            cells.append("" if row["tool"] == "fp32" else f"{value:+.2f} ({low:+.2f} to {high:+.2f})")
        exact = row["tool"] == "fp32"
        cells += [
            "" if exact else f"{row['sqnr_db']:.1f}",
            "" if exact else f"{row['agreement']:.3f}",
            f"{row['mb']:.2f}",
        ]
        if "speed_up" in row:
            cells.append(f"{row['latency_ms']:.3f}")
            for key in ("speed_up", "times_ours"):
                value, low, high = row[key]
                cells.append(f"{value:.2f} ({low:.2f} to {high:.2f})")
        else:
            cells += ["", "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
