"""The smallest run folder that a comparison can read, every file of it recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from foundation.errors import ExitCode, UsageError
from foundation.files import write_bytes
from foundation.measurements import Measurement, Where, write_measurements
from foundation.processor import Cpu
from foundation.record import FORMAT_VERSION, Environment, RunRecord, StageRecord, write_record
from foundation.run_files import record_of_file
from foundation.run_folder import RunFolder
from pipeline.custody.check import check_run

CPU = "AMD EPYC"
VARIANT = "static-int8"


def accuracy(value: float | None = 0.9, variant: str = VARIANT) -> Measurement:
    return Measurement("accuracy", value, "share", variant, Where("cpu", "test"), 200, (0.85, 0.94))


def size(value: float | None = 1_000_000) -> Measurement:
    return Measurement("size_bytes", value, "bytes", VARIANT)


def latency(value: float | None = 10.0, threads: int = 1, half_width: float = 0.1) -> Measurement:
    interval = None if value is None else (value - half_width, value + half_width)
    where = Where("cpu", "test", threads=threads, batch_size=1)
    return Measurement("latency_p50_ms", value, "ms", VARIANT, where, 1024, interval, {"rounds": 32})


def speedup(value: float | None = 3.0, half_width: float = 0.05) -> Measurement:
    interval = None if value is None else (value - half_width, value + half_width)
    where = Where("cpu", "test", threads=1, batch_size=1)
    return Measurement("latency_speedup", value, "×", VARIANT, where, 5, interval)


def against_kernel(value: float | None = 0.2) -> Measurement:
    interval = None if value is None else (value * 0.98, value * 1.02)
    where = Where("cpu", "test", threads=1, batch_size=1)
    return Measurement("latency_against_kernel", value, "×", VARIANT, where, 5, interval)


MEASUREMENTS = (accuracy(0.91, "fp32"), accuracy(), size(), latency(), speedup())


def environment(cpu: str = CPU, onnxruntime: str = "1.31.1") -> Environment:
    return Environment(
        edgeproof="0.1.0",
        python="3.12.0",
        platform="Linux-6.1-x86_64",
        cpu=Cpu(cpu, 2, ("avx2",), "x86-avx2"),
        packages={"onnxruntime": onnxruntime},
        providers=("cpu",),
        neural_compressor={"onnx": "1.18.0"},
    )


def small_record(**changes: Any) -> RunRecord:
    """Return the record of a run that has only begun, with some of its fields changed."""
    values: dict[str, Any] = {
        "name": "small",
        "configuration": {},
        "configuration_sha256": "c" * 64,
        "gates_sha256": "g" * 64,
        "dataset": "digits",
        "environment": environment(),
        "task": None,
        "synthetic": False,
        "classes": (),
        "variants": (),
        "stages": (),
        "verdicts": (),
        "exit_code": None,
        "format_version": FORMAT_VERSION,
    }
    return RunRecord(**(values | changes))


def write_run(
    root: Path,
    measurements: tuple[Measurement, ...] = MEASUREMENTS,
    *,
    exit_code: int | None = 0,
    configuration: str = "c" * 64,
    gates: str = "g" * 64,
    images: bytes = b"images",
    cpu: str = CPU,
    onnxruntime: str = "1.31.1",
) -> RunFolder:
    run = RunFolder(root)
    write_measurements(run.measurements, measurements)
    write_bytes(run.data / "test.images.npy", images)
    paths = (run.measurements, run.data / "test.images.npy")
    files = {path.relative_to(root).as_posix(): record_of_file(path) for path in paths}
    outputs = {"data/test.images.npy": files["data/test.images.npy"].sha256}
    stage = StageRecord("data", None, "done", "k", {}, outputs, 1.5, None)
    record = small_record(
        configuration_sha256=configuration,
        gates_sha256=gates,
        environment=environment(cpu, onnxruntime),
        stages=(stage,),
        exit_code=None if exit_code is None else ExitCode(exit_code),
        files=files,
    )
    write_record(run, record)
    return run


def quiet_changes(run: RunFolder, times: int) -> list[tuple[str, int]]:
    """Change one random byte of a file again and again; return those changes that `check` did not find.

    The files of the record are changed all at once, and each has to be named; `run.json`, which names them, alone.
    """
    names = [one.path for one in check_run(run, None).files]
    generator = np.random.default_rng(0)
    quiet: list[tuple[str, int]] = []
    for number in range(-(-times // (len(names) + 1)) * 2):
        chosen = names if number % 2 else ["run.json"]
        places = {name: int(generator.integers((run.root / name).stat().st_size)) for name in chosen}
        were = {name: (run.root / name).read_bytes()[place] for name, place in places.items()}
        for name, place in places.items():
            _put(run.root / name, place, were[name] ^ int(generator.integers(1, 256)))
        found = _changed(run)
        quiet += [(name, place) for name, place in places.items() if name not in found]
        for name, place in places.items():
            _put(run.root / name, place, were[name])
    assert check_run(run, None).exit_code == ExitCode.PASSED
    return quiet


def _changed(run: RunFolder) -> set[str]:
    """Return the files that `check` says were changed."""
    try:
        checked = check_run(run, None)
    except UsageError:  # what was run.json is none any more
        return {"run.json"}
    assert (checked.exit_code == ExitCode.USAGE) == bool(checked.bad or checked.faults)
    return {one.path for one in checked.bad} | ({"run.json"} if checked.faults else set())


def _put(path: Path, place: int, byte: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write(bytes([byte]))
