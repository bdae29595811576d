"""One ONNX classifier through every tool that is installed: what the files keep, and their time on CPU and OpenVINO.

    python benchmarks/peers.py MODEL.onnx --images FOLDER --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 \\
        --fit crop --environments FOLDER --keep FILES

Every tool gets the same float file and the same calibration images (`peer_workers.py`); `--environments` holds a
virtual environment for each, `NAME/bin/python` or `*-NAME/bin/python`. A file that lies in `--keep` is not made anew;
`--make-only` ends there, so that files are made at any time and timed on a quiet machine. All files answer the same
images that none was calibrated on, and are timed in one run: fresh processes of each file take turns, one thread, on
ONNX Runtime's CPU provider and on OpenVINO in float32. For that on a processor that is not Intel's, run this in an
environment with `onnxruntime-openvino` in place of `onnxruntime`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from peer_workers import TOOLS

if TYPE_CHECKING:
    from foundation.artifacts import OnnxModel
    from pipeline.one_file.job import Job

OURS = {
    "edgeproof static": {"method": "static"},
    "edgeproof static, mse": {"method": "static", "calibration": "mse"},
    "edgeproof static, mse, rounding": {"method": "static", "calibration": "mse", "recovery": "rounding"},
    "edgeproof mixed": {"method": "mixed"},
    "edgeproof dynamic": {"method": "dynamic"},
}
PLACES = ("cpu", "openvino")
_PROCESSES = 5


@dataclass(frozen=True)
class Peer:
    """A tool's file, or why there is none."""

    tool: str
    path: Path
    reason: str = ""


def ours(arguments: argparse.Namespace, options: dict[str, Any], path: Path) -> None:
    """Write one of our files, without timing it."""
    command = [sys.executable, "-m", "pipeline", "quantize", str(arguments.model), "--output", str(path)]
    given = {"images": arguments.images, "mean": arguments.mean, "std": arguments.std, "fit": arguments.fit}
    for name, value in (given | {"limit": arguments.calibrated} | options).items():
        command += [f"--{name}", str(value)] if value is not None else []
    _checked([*command, "--quiet", "--accept-worse"], os.environ)


def theirs(tool: str, python: Path, model: Path, rows: Path, path: Path) -> None:
    """Write one of another tool's files, in its environment."""
    worker = str(Path(__file__).with_name("peer_workers.py").resolve())
    made = path.with_name(f"{path.stem}.part.onnx")
    paths = [str(given.absolute()) for given in (model, rows, made)]
    with TemporaryDirectory() as folder:  # some tools leave files where they run
        _checked([str(python.absolute()), "-P", worker, tool, *paths], {**os.environ, "PYTHONPATH": ""}, folder)
    made.rename(path)


def _checked(command: Sequence[str], environment: Any, folder: str | None = None) -> None:
    answer = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(environment), cwd=folder)
    if answer.returncode:
        raise RuntimeError((answer.stderr.strip().splitlines() or [f"exit status {answer.returncode}"])[-1][:300])


def python_of(tool: str, environments: Path | None) -> Path | None:
    """Return the interpreter of a tool's environment; ONNX Runtime is in this one."""
    if tool == "onnxruntime":
        return Path(sys.executable)
    found = (
        [*environments.glob(f"{tool}/bin/python"), *environments.glob(f"*-{tool}/bin/python")] if environments else []
    )
    return found[0] if found else None


def peers(arguments: argparse.Namespace, job: Job) -> Iterator[Peer]:
    """Make every file that is not there yet."""
    from onnx_files.preprocessing import Preprocessing

    assert isinstance(job.preprocessing, Preprocessing)
    rows = arguments.keep / "calibration.npy"
    np.save(rows, np.asarray(job.preprocessing.to_input(np.asarray(job.shown.pixels)), np.float32))
    jobs = [(tool, options, None) for tool, options in OURS.items()]
    jobs += [(tool, None, python_of(tool, arguments.environments)) for tool in TOOLS]
    for tool, options, python in jobs:
        path = arguments.keep / f"{tool.replace(', ', '-').replace(' ', '-')}.onnx"
        print(f"{tool} …", file=sys.stderr, flush=True)
        try:
            if not path.is_file():
                if options is not None:
                    ours(arguments, options, path)
                elif python is None:
                    raise RuntimeError(f"no environment of that name in {arguments.environments}")
                else:
                    theirs(tool, python, arguments.model, rows, path)
            yield Peer(tool, path)
        except RuntimeError as error:
            yield Peer(tool, path, str(error))


def judged(model: OnnxModel, job: Job, place: str, expected: NDArray[np.float32]) -> tuple[float, float]:
    """Return a file's SQNR in dB and its share of equal answers, on the images that none was calibrated on."""
    from onnx_files.sessions import open_session
    from stages.validate.metrics import logits_sqnr_db

    found = answers(open_session(model.path, place, 1), job)
    return (
        float(logits_sqnr_db(found, expected, np.ones((1, len(found))))[0]),
        float(np.mean(found.argmax(1) == expected.argmax(1))),
    )


def answers(session: Any, job: Job) -> NDArray[np.float32]:
    """Return the logits for the images that none was calibrated on."""
    assert job.preprocessing is not None
    entry, pixels = session.get_inputs()[0].name, np.asarray(job.others.pixels)
    each = (session.run(None, {entry: job.preprocessing.to_input(image[None])})[0] for image in pixels)
    return np.concatenate([np.asarray(row, np.float32).reshape(1, -1) for row in each])


def with_preprocessing(path: Path, job: Job, folder: Path, variant: str) -> OnnxModel:
    """Return a file with the metadata that says how images reach it: what times it reads that."""
    import onnx

    from foundation.artifacts import OnnxModel
    from foundation.files import sha256_of_file

    assert job.preprocessing is not None
    proto = onnx.load_model(path)
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    onnx.helper.set_model_props(proto, metadata | job.preprocessing.to_metadata())
    named = folder / f"{variant}.onnx"
    onnx.save_model(proto, named)
    return OnnxModel(variant, named, sha256_of_file(named), None)


def timed(models: Sequence[OnnxModel], job: Job, place: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return from each file's variant to its times in ms [processes, rounds, queries], or why there are none."""
    from foundation.progress import no_progress
    from stages.validate.latency_settings import LatencySettings
    from stages.validate.latency_turns import Place, time_in_turns

    settings = LatencySettings(
        processes=_PROCESSES, rounds=arguments.rounds, queries_per_round=arguments.queries, time_budget_s=0.0
    )
    found = time_in_turns(models, np.asarray(job.others.pixels[0]), Place(place, 1, 1), settings, no_progress)
    return {
        variant: timing.reason if timing.durations_ms is None else timing.durations_ms
        for variant, timing in found.items()
    }


def compare(arguments: argparse.Namespace, job: Job, made: Sequence[Peer], scratch: Path) -> dict[str, Any]:
    """Measure every file at every place."""
    from onnx_files.sessions import open_session, why_unavailable
    from stages.validate.latency_intervals import geometric_estimate, log_ratios

    models = {"fp32": with_preprocessing(arguments.model, job, scratch, "fp32")}
    for peer in (peer for peer in made if not peer.reason):
        models[peer.tool] = with_preprocessing(peer.path, job, scratch, peer.path.stem)
    expected = answers(open_session(models["fp32"].path, "cpu", 1), job)
    rows: dict[str, Any] = {tool: {"mb": model.size_bytes / 1e6} for tool, model in models.items()}
    for place in PLACES:
        if reason := why_unavailable(place):
            print(f"{place}: not measured ({reason})")
            continue
        for tool, model in models.items():
            try:
                rows[tool][place] = dict(
                    zip(("sqnr_db", "agreement"), judged(model, job, place, expected), strict=True)
                )
            except Exception as error:  # whatever a provider raises on another tool's file
                rows[tool][place] = {"reason": str(error).splitlines()[0][:200]}
        times = timed(list(models.values()), job, place, arguments)
        for tool, model in models.items():
            row, found = rows[tool][place], times[model.variant]
            if isinstance(found, str):
                row.setdefault("reason", found)
                continue
            row["ms"] = float(np.median(found))
            if not isinstance(times["fp32"], str):
                ratio = geometric_estimate(log_ratios(times["fp32"], found), _PROCESSES)
                row["speed_up"] = (ratio.value, *(ratio.ci95 or ()))
    return rows


def table(rows: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = [
        "| tool | MB | place | SQNR, dB | agreement, % | ms | float on this place / file (95 %) |",
        "|" + " --- |" * 7,
    ]
    for tool, row in rows.items():
        for place in (place for place in PLACES if place in row):
            found = row[place]
            if "ms" not in found:
                lines.append(
                    f"| {tool} | {row['mb']:.1f} | {place} | not measured: {found.get('reason', '')} | | | |"
                )
                continue
            decibels = "exact" if not np.isfinite(found["sqnr_db"]) else f"{found['sqnr_db']:.1f}"
            ratio = found.get("speed_up", ())
            told = f"{ratio[0]:.2f} ({ratio[1]:.2f}–{ratio[2]:.2f})" if len(ratio) == 3 else "–"
            share = f"{100 * found['agreement']:.1f}"
            lines.append(
                f"| {tool} | {row['mb']:.1f} | {place} | {decibels} | {share} | {found['ms']:.2f} | {told} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Make, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--mean")
    parser.add_argument("--std")
    parser.add_argument("--fit", default="pad")
    parser.add_argument("--calibrated", type=int, default=64, help="calibration images")
    parser.add_argument("--test", type=int, default=400, help="other images, to compare the files on, at most")
    parser.add_argument("--environments", type=Path, help="folder with a virtual environment of each tool")
    parser.add_argument("--keep", type=Path, required=True, help="folder of the files")
    parser.add_argument("--make-only", action="store_true")
    parser.add_argument("--rounds", type=int, default=7, help="per process")
    parser.add_argument("--queries", type=int, default=30, help="per round and file")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    arguments = parser.parse_args()
    arguments.keep.mkdir(parents=True, exist_ok=True)
    from foundation.progress import Silent
    from pipeline.one_file.job import HELD_OUT_IMAGES, read_job
    from pipeline.one_file.options import request_for

    options = {"method": "static", "images": arguments.images, "mean": arguments.mean, "std": arguments.std}
    request = request_for(arguments.model, options | {"fit": arguments.fit, "limit": arguments.calibrated})
    with TemporaryDirectory() as scratch:
        job = read_job(request, max(0, arguments.test - HELD_OUT_IMAGES), Path(scratch), Silent())
        assert job.folder is not None
        job = replace(job, others=job.folder.held_out)
        made = list(peers(arguments, job))
        for peer in made:
            if peer.reason:
                print(f"{peer.tool}: not measured ({peer.reason})")
        if arguments.make_only:
            return
        load = os.getloadavg()[0]
        rows = compare(arguments, job, made, Path(scratch))
    print(f"{arguments.model.name}: {len(job.shown)} calibration images, {len(job.others)} others, load {load:.1f}")
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
