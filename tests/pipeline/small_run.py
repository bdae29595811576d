"""The smallest run folder that a comparison can read."""

from __future__ import annotations

from pathlib import Path

from foundation.files import JSON, write_json
from foundation.record import Measurement
from foundation.run_folder import RunFolder

CPU = "AMD EPYC"
VARIANT = "static-int8"


def accuracy(value: float | None = 0.9, variant: str = VARIANT) -> Measurement:
    return Measurement("accuracy", value, "share", variant, "cpu", "test", 200, (0.85, 0.94))


def size(value: float | None = 1_000_000) -> Measurement:
    return Measurement("size_bytes", value, "bytes", VARIANT)


def latency(value: float | None = 10.0, threads: int = 1, half_width: float = 0.1) -> Measurement:
    interval = None if value is None else (value - half_width, value + half_width)
    settings = {"threads": threads, "batch_size": 1, "rounds": 32}
    return Measurement("latency_p50_ms", value, "ms", VARIANT, "cpu", "test", 1024, interval, settings)


def speedup(value: float | None = 3.0, half_width: float = 0.05) -> Measurement:
    interval = None if value is None else (value - half_width, value + half_width)
    settings = {"threads": 1, "batch_size": 1}
    return Measurement("latency_speedup", value, "×", VARIANT, "cpu", "test", 32, interval, settings)


MEASUREMENTS = (accuracy(0.91, "fp32"), accuracy(), size(), latency(), speedup())


def write_run(
    root: Path,
    measurements: tuple[Measurement, ...] = MEASUREMENTS,
    *,
    exit_code: int | None = 0,
    configuration: str = "c" * 64,
    gates: str = "g" * 64,
    data: str = "d" * 64,
    cpu: str = CPU,
    onnxruntime: str = "1.31.1",
) -> RunFolder:
    run = RunFolder(root)
    stages: list[JSON] = [
        {
            "name": "data",
            "status": "done",
            "key": "k",
            "inputs": {},
            "outputs": {"data/test.images.npy": data},
            "seconds": 1.5,
        }
    ]
    write_json(run.measurements, [one.as_json() for one in measurements])
    write_json(
        run.record,
        {
            "format_version": 1,
            "name": "small",
            "configuration_sha256": configuration,
            "gates_sha256": gates,
            "environment": {
                "edgeproof": "0.1.0",
                "python": "3.12.0",
                "cpu": {"model": cpu},
                "packages": {"onnxruntime": onnxruntime},
                "neural_compressor": {"onnx": "1.18.0"},
            },
            "stages": stages,
            "variants": [],
            "verdicts": [],
            "exit_code": exit_code,
        },
    )
    return run
