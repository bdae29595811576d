"""Cost of one saliency map: the twin, a plain forward pass, PyTorch's forward + backward, Grad-CAM and occlusion.

    python benchmarks/saliency.py --networks lenet5@28 resnet20@32 resnet18@224 mobilenet_v2@224 --threads 1

Every round takes each kind once, in a rotating order, so that what else the machine does falls on all of them; the
ratios are of one round. Occlusion of the gradient's own resolution, a patch of one pixel on every pixel, would take
hours, so its time is that of the occlusion measured times how many more queries it makes. Peak memory is that of a
process of its own that does nothing but one kind.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

CLASSES = tuple("0123456789")
FILES = {
    "forward": "fp32.onnx",
    "twin": "fp32.saliency.onnx",
    "grad-cam": "fp32.gradcam.onnx",
    "occlusion": "fp32.onnx",
}
KINDS = ("forward", "twin", "grad-cam", "torch", "occlusion")
BOUNDS = (
    ("twin", "forward", "at most", 3.0),
    ("twin", "torch", "at most", 1.0),
    ("occlusion per pixel", "twin", "at least", 50.0),
)
"""The ratios that this project holds itself to."""
MEMORY_OF = "--memory-of"


def spec_of(network: str, size: int) -> Any:
    """Return the untrained network's specification; weights don't change what a pass costs."""
    from stages.network.checkpoint import NetworkSpec

    channels = 1 if network == "lenet5" else 3
    return NetworkSpec(network, CLASSES, channels, size, (0.5,) * channels, (0.25,) * channels, None)


def write_files(network: str, size: int, folder: Path) -> None:
    """Export the network, and write both of its twins."""
    from stages.export.onnx_file import write_onnx
    from stages.export.settings import ExportSettings
    from stages.saliency_twin.grad_cam import make_grad_cam
    from stages.saliency_twin.twin_file import make_twin

    spec = spec_of(network, size)
    write_onnx(spec.build(0).eval(), spec, ExportSettings(), "fp32", "0" * 64, folder / "fp32.onnx")
    make_twin(folder / "fp32.onnx", None, None, None)
    make_grad_cam(folder / "fp32.onnx")


def images_of(network: str, size: int, batch: int) -> np.ndarray:
    """Return noise; what a pass costs does not depend on the image."""
    shape = (batch, 1 if network == "lenet5" else 3, size, size)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def kind_of(kind: str, network: str, images: np.ndarray, folder: Path, threads: int) -> Callable[[], None]:
    """Return what computes the maps of the images once, or their logits."""
    targets = np.zeros(len(images), dtype=np.int64)
    if kind == "torch":
        return _in_torch(network, images, threads)
    from onnx_files.sessions import open_session
    from stages.validate.maps.methods import ExplainedFiles, open_method
    from stages.validate.maps.settings import MapSettings

    path = folder / FILES[kind]
    if kind == "occlusion":
        explain = open_method(kind, ExplainedFiles(path), "multi_class", MapSettings(threads=threads))
        return lambda: _drop(explain(images, targets))
    session = open_session(path, "cpu", threads)
    if kind == "forward":
        return lambda: _drop(session.run(None, {"image": images}))
    return lambda: _drop(session.run(["saliency"], {"image": images, "target": targets}))


def _drop(_result: object) -> None:
    pass


def _in_torch(network: str, images: np.ndarray, threads: int) -> Callable[[], None]:
    import torch

    from stages.network.normalisation import normalise

    torch.set_num_threads(threads)
    spec = spec_of(network, images.shape[2])
    # Without gradients of the weights, which nobody asks for.
    module = spec.build(0).eval().requires_grad_(False)

    def both_ways() -> None:
        leaf = torch.from_numpy(images).float().requires_grad_()
        torch.autograd.grad(module(normalise(leaf, spec.mean, spec.std))[:, 0].sum(), leaf)

    return both_ways


def queries_of_occlusion(size: int) -> int:
    """Return how many queries an image takes with the settings' own patch and stride."""
    from stages.validate.maps.occlusion import patch_corners
    from stages.validate.maps.settings import MapSettings

    settings = MapSettings()
    return 1 + len(patch_corners(size, size, settings.patch(size), settings.stride(size)))


def measure(kinds: dict[str, Callable[[], None]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each kind in each round; a turn repeats its kind for a tenth of a second.

    Turns of one length, because on a busy machine a short one often falls between two interruptions and a long one
    never does.
    """
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    names, repeats = list(kinds), {}
    for name, run in kinds.items():
        run()
        started = time.perf_counter()
        run()
        repeats[name] = max(1, round(0.1 / (time.perf_counter() - started)))
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            if repeats[name] > 1:
                kinds[name]()  # brings its weights back into the caches
            started = time.perf_counter()
            for _ in range(repeats[name]):
                kinds[name]()
            seconds[name].append((time.perf_counter() - started) / repeats[name])
    return seconds


def ratio(numerator: list[float], denominator: list[float]) -> tuple[float, float, float]:
    """Return the median of the rounds' ratios and its 95 % bootstrap interval."""
    from scipy.stats import bootstrap

    ratios = np.array(numerator) / np.array(denominator)
    interval = bootstrap((ratios,), np.median, rng=np.random.default_rng(0), method="percentile").confidence_interval
    return float(np.median(ratios)), float(interval.low), float(interval.high)


def memory_bytes(kind: str, network: str, size: int, batch: int, threads: int, folder: Path) -> int:
    """Return the peak memory of a process that computes one kind a few times."""
    request = json.dumps([kind, network, size, batch, threads, str(folder)])
    root = str(Path(__file__).resolve().parents[1])
    answer = subprocess.run(
        [sys.executable, __file__, MEMORY_OF, request],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(answer.stdout.split()[-1])


def _in_a_process_of_its_own(request: str) -> None:
    kind, network, size, batch, threads, folder = json.loads(request)
    run = kind_of(kind, network, images_of(network, size, batch), Path(folder), threads)
    for _ in range(1 if kind == "occlusion" else 3):
        run()
    status = Path("/proc/self/status").read_text()
    print(1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]))


def measure_network(network: str, size: int, arguments: argparse.Namespace, console: Console) -> dict[str, Any]:
    """Measure one network, print its table and verdicts, and return the figures."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_files(network, size, folder)
        images = images_of(network, size, arguments.batch)
        kinds = {kind: kind_of(kind, network, images, folder, arguments.threads) for kind in KINDS}
        seconds = measure(kinds, arguments.rounds)
        peaks = {
            kind: memory_bytes(kind, network, size, arguments.batch, arguments.threads, folder) for kind in KINDS
        }
    coarse = queries_of_occlusion(size)
    seconds["occlusion per pixel"] = [s / coarse * (1 + size * size) for s in seconds["occlusion"]]
    table = Table(
        title=f"{network}, {size} px, batch {arguments.batch}, {arguments.threads} threads, {arguments.rounds} rounds"
    )
    for column in ("kind", "queries an image", "median ms", "× forward (95 %)", "× torch (95 %)", "peak memory MB"):
        table.add_column(column, justify="left" if column == "kind" else "right")
    queries = {"occlusion": coarse, "occlusion per pixel": 1 + size * size}
    figures: dict[str, Any] = {}
    for kind, values in seconds.items():
        figures[kind] = {
            "queries": queries.get(kind, 1),
            "median_ms": 1e3 * float(np.median(values)),
            "times_forward": ratio(values, seconds["forward"]),
            "times_torch": ratio(values, seconds["torch"]),
            "peak_memory_bytes": peaks.get(kind),
        }
        row = figures[kind]
        shown = [
            f"{row[key][0]:.3g} ({row[key][1]:.3g} to {row[key][2]:.3g})" for key in ("times_forward", "times_torch")
        ]
        peak = f"{row['peak_memory_bytes'] / 1e6:.0f}" if kind in peaks else "as above"
        table.add_row(kind, str(row["queries"]), f"{row['median_ms']:,.2f}", *shown, peak)
    console.print(table)
    for kind, base, direction, bound in BOUNDS:
        found = ratio(seconds[kind], seconds[base])[0]
        holds = found <= bound if direction == "at most" else found >= bound
        console.print(f"{'✓' if holds else '✗'} {kind} {direction} {bound:g} × {base}: {found:.2f}")
    coarse_ratio = ratio(seconds["occlusion"], seconds["twin"])[0]
    console.print(f"  occlusion with the settings' own patch and stride, far coarser: {coarse_ratio:.0f} × twin")
    return figures


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--networks", nargs="+", default=["lenet5@28", "resnet20@32", "resnet18@224", "mobilenet_v2@224"]
    )
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    parser.add_argument(MEMORY_OF, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory_of:
        _in_a_process_of_its_own(arguments.memory_of)
        return
    console = Console()
    figures = {}
    for name in arguments.networks:
        network, _, size = name.partition("@")
        figures[name] = measure_network(network, int(size), arguments, console)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
