"""Calibration: time and peak memory against ONNX Runtime's calibrators, Intel Neural Compressor and NNCF.

    python benchmarks/quantization.py --network mobilenet_v2 --images-folder FOLDER --calibrated 16 64 512 --threads 1

Everything is measured in a process of its own, on the same images; each round takes every tool once, with the bare
forward passes of the same images beside it, and the ratios are of one round. Time runs from the float file to the
ranges (ONNX Runtime, ours) or to the quantized file (Neural Compressor, NNCF, which offer nothing in between); memory
is the process's greatest resident set. The networks have initial weights, their batch norms are fitted to the images.
Neural Compressor is measured where `edgeproof doctor --create-neural-compressor` has been run, NNCF where it is
installed (`pip install nncf openvino`, or in a folder named in PYTHONPATH).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

METHODS = ("minmax", "percentile", "entropy", "mse")
SIZE = 224
BOUNDS = {
    "memory, most images to fewest": 1.25,
    "peak MB": 700.0,
    "time, × bare": 2.0,
    "× faster than quantize_static": 5.0,
}
"""What this project holds percentile and entropy to on MobileNetV2: the first three at most, the last at least."""


@dataclass(frozen=True)
class Figure:
    """What one process did.

    Attributes:
        seconds: wall time of the calibration, without imports.
        cpu_seconds: of all its threads.
        bare_seconds, bare_cpu_seconds: of the bare forward passes, likewise; 0 where they were not run.
        peak_mb: greatest resident set, MB of 10⁶ bytes.
    """

    seconds: float
    cpu_seconds: float
    bare_seconds: float
    bare_cpu_seconds: float
    peak_mb: float


# --- what is measured, each in a child ---


def ours(model: Path, images: NDArray[np.uint8], method: str, threads: int) -> None:
    """Find ranges the way `method: static` does."""
    import onnx

    from onnx_files.preprocessing import Preprocessing
    from stages.quantize.calibration.ranges import Calibration, find_ranges
    from stages.quantize.methods.static import quantized_operators

    proto = onnx.load_model(model)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    calibration = Calibration(method)  # type: ignore[arg-type]
    find_ranges(proto, images, Preprocessing.from_metadata(metadata), "image", quantized_operators(), calibration)


def onnxruntime_calibrator(model: Path, images: NDArray[np.uint8], method: str, threads: int) -> None:
    """Find ranges the way ONNX Runtime's `quantize_static` does, one image at a time, with its defaults."""
    from onnxruntime.quantization import CalibrationMethod, create_calibrator

    kind = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }[method]
    with TemporaryDirectory() as folder:
        calibrator = create_calibrator(model, None, str(Path(folder, "augmented.onnx")), kind)
        calibrator.collect_data(_Reader(images))
        calibrator.compute_data()


def neural_compressor(model: Path, images: NDArray[np.uint8], method: str, threads: int) -> None:
    """Quantize with Intel Neural Compressor's static mode, in its own environment."""
    from stages.quantize.neural_compressor import worker as program
    from stages.quantize.neural_compressor.environment import worker_python

    job = {
        "task": "neural_compressor", "mode": "static", "format": "QDQ", "threads": threads, "batch_size": 1,
        "nodes_in_float": [], "reduce_range": False, "tolerable_loss": 0.01, "max_trials": 1,
    }  # fmt: skip
    with TemporaryDirectory() as folder:
        Path(folder, "float.onnx").write_bytes(model.read_bytes())
        Path(folder, "job.json").write_text(json.dumps(job), encoding="utf-8")
        none = np.zeros(0, dtype=np.int64)
        np.savez(Path(folder, "images.npz"), images=images, validation_images=images[:0], validation_labels=none)
        subprocess.run(
            [worker_python(), "-s", "-P", program.__file__, folder], check=True, capture_output=True, timeout=3600
        )


def nncf(model: Path, images: NDArray[np.uint8], method: str, threads: int) -> None:
    """Quantize with NNCF's post-training quantization of ONNX files."""
    import nncf as tool
    import onnx

    dataset = tool.Dataset(list(range(len(images))), lambda index: {"image": images[index : index + 1]})
    tool.quantize(onnx.load_model(model), dataset, subset_size=len(images))


TOOLS: dict[str, Callable[[Path, NDArray[np.uint8], str, int], None]] = {
    "edgeproof": ours,
    "ONNX Runtime": onnxruntime_calibrator,
    "Neural Compressor": neural_compressor,
    "NNCF": nncf,
}
METHODS_OF = {
    "edgeproof": METHODS,
    "ONNX Runtime": ("minmax", "percentile", "entropy"),
    "Neural Compressor": ("minmax",),
    "NNCF": ("minmax",),
}
"""What each tool calls so, or its only way."""


class _Reader:
    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images = images
        self._next = 0

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        self._next += 1
        if self._next > len(self._images):
            return None
        return {"image": np.ascontiguousarray(self._images[self._next - 1 : self._next])}


def measure_here(tool: str, method: str, model: Path, images_path: Path, count: int, threads: int) -> Figure:
    """Calibrate once in this process, with half of the bare forward passes before and half after."""
    images = np.load(images_path, mmap_mode="r")[:count]
    before = _bare(model, images[: (count + 1) // 2], threads) if tool == "edgeproof" else (0.0, 0.0)
    started, cpu = time.perf_counter(), _cpu_seconds()
    TOOLS[tool](model, images, method, threads)
    seconds, cpu_seconds = time.perf_counter() - started, _cpu_seconds() - cpu
    peak_mb = _peak_mb(of_children=tool == "Neural Compressor")
    after = _bare(model, images[(count + 1) // 2 :], threads) if tool == "edgeproof" else (0.0, 0.0)
    return Figure(seconds, cpu_seconds, before[0] + after[0], before[1] + after[1], peak_mb)


def _peak_mb(of_children: bool) -> float:
    status = Path("/proc/self/status")
    if not of_children and status.is_file():
        # Not getrusage: its peak is handed down from the process that started this one.
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) * 1024 / 1e6
    return (
        resource.getrusage(resource.RUSAGE_CHILDREN if of_children else resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    )


def _cpu_seconds() -> float:
    return time.process_time() + sum(os.times()[2:4])


def _bare(model: Path, images: NDArray[np.uint8], threads: int) -> tuple[float, float]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = [{"image": np.ascontiguousarray(images[index : index + 1])} for index in range(min(len(images), 1))]
    for feed in feeds:
        session.run(None, feed)
    started, cpu = time.perf_counter(), time.process_time()
    for index in range(len(images)):
        session.run(None, {"image": np.ascontiguousarray(images[index : index + 1])})
    return time.perf_counter() - started, time.process_time() - cpu


# --- networks and images ---


def write_images(folder: Path | None, count: int, path: Path) -> str:
    """Write uint8 [count, 3, 224, 224] to `path`: a folder's pictures, or generated endoscopy; say which."""
    if folder is None:
        from calibration_data.datasets.endoscopy import EndoscopySettings, open_endoscopy

        per_class = max(6, -(-count // 8) + -(-count // 8) % 2)
        dataset = open_endoscopy(EndoscopySettings(frames_per_class=per_class, frame_size=SIZE))
        frames = [dataset.load(record).pixels for record in dataset.records[:count]]
        np.save(path, np.stack([np.moveaxis(frame, -1, 0) if frame.shape[-1] == 3 else frame for frame in frames]))
        return "generated endoscopy"
    from PIL import Image

    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png"))[:count]
    if len(files) < count:
        sys.exit(f"{folder}: expected {count} pictures, found {len(files)}. Lower --calibrated.")
    pictures = [np.asarray(Image.open(file).convert("RGB").resize((SIZE, SIZE))) for file in files]
    np.save(path, np.stack(pictures).transpose(0, 3, 1, 2))
    return f"{folder.parent.name}/{folder.name}"


def write_network(name: str, images_path: Path, folder: Path) -> Path:
    """Export a network with initial weights whose batch norms hold the statistics of the images.

    Without them the signal dies on its way, and every image gets the same logits.
    """
    import torch

    from stages.export.settings import ExportSettings
    from stages.export.to_onnx import export_fp32
    from stages.network.checkpoint import NetworkSpec, save_checkpoint
    from stages.network.normalisation import normalise
    from stages.train.norm_statistics import retake_statistics

    images = np.load(images_path, mmap_mode="r")[:48]
    mean = tuple(float(value) / 255 for value in images.mean(axis=(0, 2, 3)))
    std = tuple(float(value) / 255 for value in images.std(axis=(0, 2, 3)))
    spec = NetworkSpec(name, tuple("abcdefgh"), 3, SIZE, mean, std, None)
    network = spec.build(0)
    retake_statistics(network, (normalise(batch, mean, std) for batch in torch.from_numpy(images.copy()).split(8)))
    path = folder / f"{name}.onnx"
    export_fp32(save_checkpoint(folder / f"{name}.safetensors", spec, network), ExportSettings(), path)
    return path


# --- the comparison ---


def in_a_process(tool: str, method: str, model: Path, images: Path, count: int, threads: int) -> Figure | str:
    """Measure in a child; return the reason where that fails."""
    command = [sys.executable, __file__, "--child", tool, method, str(model), str(images), str(count), str(threads)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        return (answer.stderr.strip().splitlines() or [f"exit status {answer.returncode}"])[-1]
    return Figure(**json.loads(answer.stdout.splitlines()[-1]))


def ratio(numerator: list[float], denominator: list[float]) -> tuple[float, float, float]:
    """Return the median of the rounds' ratios and its 95 % bootstrap interval; not a number with one round."""
    ratios = np.array(numerator) / np.array(denominator)
    if len(ratios) < 2:
        return float(np.median(ratios)), float("nan"), float("nan")
    from scipy.stats import bootstrap  # not in the children, whose memory is measured

    interval = bootstrap((ratios,), np.median, rng=np.random.default_rng(0), method="percentile").confidence_interval
    return float(np.median(ratios)), float(interval.low), float(interval.high)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="mobilenet_v2")
    parser.add_argument("--images-folder", type=Path, help="pictures to calibrate with; generated endoscopy without")
    parser.add_argument("--calibrated", type=int, nargs="+", default=[16, 64, 512], help="numbers of images")
    parser.add_argument("--peers-up-to", type=int, default=64, help="most images to give the other tools")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--tools", nargs="+", choices=tuple(TOOLS), default=list(TOOLS))
    parser.add_argument("--threads", type=int, default=0, help="of the bare passes; 0: as ONNX Runtime chooses")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument("--child", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        tool, method, model, images, count, threads = arguments.child
        figure = measure_here(tool, method, Path(model), Path(images), int(count), int(threads))
        print(json.dumps(asdict(figure)))
        return
    with TemporaryDirectory() as folder:
        images = Path(folder, "images.npy")
        source = write_images(arguments.images_folder, max(arguments.calibrated), images)
        model = write_network(arguments.network, images, Path(folder))
        compare(arguments, model, images, source)


def compare(arguments: argparse.Namespace, model: Path, images: Path, source: str) -> None:
    """Measure every tool in rounds and print the table and the bounds."""
    cases = [
        (tool, method, count)
        for count in arguments.calibrated
        for method in arguments.methods
        for tool in arguments.tools
        if method in METHODS_OF[tool] and (tool == "edgeproof" or count <= arguments.peers_up_to)
    ]
    figures: dict[tuple[str, str, int], list[Figure]] = {case: [] for case in cases}
    reasons: dict[str, str] = {}
    for number in range(arguments.rounds):
        for tool, method, count in cases[number % len(cases) :] + cases[: number % len(cases)]:
            if tool in reasons:
                continue
            found = in_a_process(tool, method, model, images, count, arguments.threads)
            if isinstance(found, str):
                reasons[tool] = found
            else:
                figures[tool, method, count].append(found)
    table = Table(
        title=f"{arguments.network}, {SIZE} px, {source}, {arguments.rounds} rounds, "
        f"bare passes with {arguments.threads or 'default'} threads"
    )
    for column in ("images", "ranges", "tool", "s", "CPU s", "peak MB", "× bare", "CPU × bare", "× ours (95 %)"):
        table.add_column(column, justify="left" if column in ("ranges", "tool") else "right")
    rows: list[dict[str, Any]] = []
    for (tool, method, count), found in figures.items():
        if not found:
            continue
        own = figures.get(("edgeproof", method, count), [])[: len(found)]
        row: dict[str, Any] = {"tool": tool, "method": method, "images": count, "rounds": [asdict(f) for f in found]}
        row["median"] = {key: float(np.median([entry[key] for entry in row["rounds"]])) for key in row["rounds"][0]}
        if tool == "edgeproof":
            row["times_bare"] = ratio([f.seconds for f in found], [f.bare_seconds for f in found])
            row["cpu_times_bare"] = ratio([f.cpu_seconds for f in found], [f.bare_cpu_seconds for f in found])
        elif own:
            row["times_ours"] = ratio([f.seconds for f in found[: len(own)]], [f.seconds for f in own])
        rows.append(row)
        ours_ratio = row.get("times_ours")
        median = row["median"]
        table.add_row(
            str(count), method if tool in ("edgeproof", "ONNX Runtime") else "its own", tool,
            f"{median['seconds']:.2f}", f"{median['cpu_seconds']:.2f}", f"{median['peak_mb']:.0f}",
            f"{row['times_bare'][0]:.2f}" if "times_bare" in row else "",
            f"{row['cpu_times_bare'][0]:.2f}" if "cpu_times_bare" in row else "",
            f"{ours_ratio[0]:.1f} ({ours_ratio[1]:.1f} to {ours_ratio[2]:.1f})" if ours_ratio else "",
        )  # fmt: skip
    console = Console(width=130)
    console.print(table)
    for tool, reason in reasons.items():
        console.print(f"{tool}: not measured ({reason})")
    for line in bounds(rows):
        console.print(line)
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows, "not_measured": reasons}, indent=2) + "\n")


def bounds(rows: list[dict[str, Any]]) -> list[str]:
    """Return a line on each bound that the rows can tell of."""
    lines = []
    for method in ("percentile", "entropy"):
        own = {row["images"]: row for row in rows if row["tool"] == "edgeproof" and row["method"] == method}
        theirs = {row["images"]: row for row in rows if row["tool"] == "ONNX Runtime" and row["method"] == method}
        if not own:
            continue
        fewest, most = own[min(own)], own[max(own)]
        found = {
            "memory, most images to fewest": most["median"]["peak_mb"] / fewest["median"]["peak_mb"],
            "peak MB": most["median"]["peak_mb"],
            "time, × bare": most["times_bare"][0],
        }
        for what, value in found.items():
            lines.append(f"{'✓' if value <= BOUNDS[what] else '✗'} {method}: {what} ≤ {BOUNDS[what]:g}: {value:.2f}")
        if theirs and (peer := theirs[max(theirs)]).get("times_ours"):
            what, value = "× faster than quantize_static", peer["times_ours"][0]
            mark = "✓" if value >= BOUNDS[what] else "✗"
            lines.append(f"{mark} {method}: {what} ≥ {BOUNDS[what]:g} at {peer['images']} images: {value:.1f}")
    return lines


if __name__ == "__main__":
    main()
