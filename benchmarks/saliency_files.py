"""What a gradient costs on ONNX files, in forward passes of the file: the twin beside onnx-ad's adjoint.

    python benchmarks/saliency_files.py models/vit.onnx models/swin.onnx …

Both are ordinary ONNX files; each answers the same image on one thread, in rounds of one query each (medians of the
rounds' ratios of processor time, which other work touches less than the clock; 95 % by bootstrap). Beside the cost
stand the files' sizes over the float file's, and by how much the two gradients differ; where `vit.npy` lies beside
the file, torch's gradient of class 1 at the same image (normal noise of seed 0), also how far the twin is from that.
`pip install onnx-ad`; without it the twin stands alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from saliency import ratio
from zoo import float_outputs, inputs_of, open_file, shape_of

BOUND = 4.0
"""Forward passes that this project allows a gradient."""


def adjoint(model: onnx.ModelProto, entry: str, path: Path) -> str:
    """Write onnx-ad's file; return why there is none."""
    try:
        import onnx_ad

        made = onnx_ad.reverse(model, inputs=[entry], outputs=[model.graph.output[0].name], layout="onnx")
        onnx.save_model(made, path)
        open_file(path)
    except Exception as error:  # of many kinds: not installed, no rule, refused by ONNX Runtime
        return f"{type(error).__name__}: {str(error)[:100]}"
    return ""


def measure(path: Path, rounds: int, folder: Path) -> str:
    """Return a file's line of the table."""
    from stages.saliency_twin.twin_file import make_twin

    model = onnx.load_model(path)
    entry, outputs, x = inputs_of(model)[0].name, float_outputs(model), _image(model)
    twin, theirs = folder / "twin.onnx", folder / "adjoint.onnx"
    make_twin(path, twin, None, outputs[0] if len(model.graph.output) > 1 else None)
    sessions: dict[str, Any] = {"forward": open_file(path), "twin": open_file(twin)}
    classes = sessions["forward"].run([outputs[0]], {entry: x})[0].shape[-1]
    feeds: dict[str, Any] = {"forward": {entry: x}, "twin": {entry: x, "target": np.full(len(x), 1)}}
    reason = adjoint(model, entry, theirs)
    if not reason:
        sessions["onnx-ad"] = open_file(theirs)
        seeds = np.broadcast_to(np.eye(classes, dtype=np.float32)[1][:, None], (len(x), classes, 1))
        feeds["onnx-ad"] = {entry: x, f"adj_{outputs[0]}": np.ascontiguousarray(seeds)}
    runs: dict[str, Callable[[], Any]] = {
        "forward": lambda: sessions["forward"].run(None, feeds["forward"]),
        "twin": lambda: sessions["twin"].run(["saliency"], feeds["twin"]),
        "onnx-ad": lambda: sessions["onnx-ad"].run([f"adj_{entry}"], feeds["onnx-ad"]),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    for number in range(rounds + 3):
        for name in sessions:
            began = time.process_time()
            runs[name]()
            if number >= 3:
                seconds[name].append(time.process_time() - began)
    cells, ours = [path.stem, *_cells("twin", twin, path, seconds)], runs["twin"]()[0]
    beside = path.with_suffix(".npy")
    torchs = _apart(ours, np.load(beside)) if beside.exists() else "not given"
    if reason:
        return f"| {' | '.join([*cells, f'none ({reason})', '', '', torchs])} |"
    apart = _apart(ours, runs["onnx-ad"]()[0].reshape(x.shape))
    return f"| {' | '.join([*cells, *_cells('onnx-ad', theirs, path, seconds), apart, torchs])} |"


def _apart(ours: Any, other: Any) -> str:
    return f"{float(np.abs(ours - other).max()) / max(float(np.abs(other).max()), 1e-30):.0e}"


def _image(model: onnx.ModelProto) -> Any:
    return np.random.default_rng(0).normal(0, 1, shape_of(model)).astype(np.float32)


def _cells(kind: str, made: Path, path: Path, seconds: dict[str, list[float]]) -> list[str]:
    value, low, high = ratio(seconds[kind], seconds["forward"])
    mark = " ✗" if kind == "twin" and value > BOUND else ""
    return [f"{value:.2f} ({low:.2f}–{high:.2f}){mark}", f"{made.stat().st_size / path.stat().st_size:.2f}"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    print("| file | twin, forwards (95 %) | size, × | onnx-ad, forwards (95 %) | size, × | apart | from torch |")
    print("|" + " --- |" * 7)
    for path in arguments.files:
        with TemporaryDirectory() as scratch:
            try:
                print(measure(path, arguments.rounds, Path(scratch)), flush=True)
            except Exception as error:  # one file must not end the table
                print(f"| {path.stem} | not measured: {str(error)[:150]} | | | | | |", flush=True)


if __name__ == "__main__":
    main()
