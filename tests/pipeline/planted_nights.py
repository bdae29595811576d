"""Nights of a chain data → export → quantize → validate, with one thing in the world or in the recipe changed."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Literal

from small_run import VARIANT, accuracy, against_kernel, environment, latency, small_record, speedup

from foundation.errors import ExitCode
from foundation.measurements import Measurement, write_measurements
from foundation.notes import ExportNotes
from foundation.record import Environment, StageRecord, VariantRecord, write_record
from foundation.run_files import record_of_file
from foundation.run_folder import RunFolder
from pipeline.judge.evidence import Evidence

Fault = Literal["none", "package", "data", "slower machine", "code", "configuration", "package, files alike"]

KERNEL_MS = 2.0


def night_of(fault: Fault = "none", *, loss: float = 0.0, run: str = "tonight") -> Evidence:
    """Return a night's evidence.

    Args:
        fault: what is not as in the accepted night.
        loss: accuracy that the variant lost with it.
        run: name of the night.
    """
    world = replace(environment(), sources_sha256="s" * 64)
    digests = {name: name for name in ("data", "fp32", VARIANT, "answers")}
    configuration = "c" * 64
    pace = 1.8 if fault == "slower machine" else 1.0
    if fault == "package":
        world, changed = _with_package(world), (VARIANT, "answers")
    elif fault == "package, files alike":
        world, changed = _with_package(world), ("answers",)
    elif fault == "data":
        changed = ("data", "fp32", VARIANT, "answers")
    elif fault == "code":
        world, changed = replace(world, sources_sha256="t" * 64), (VARIANT, "answers")
    elif fault == "configuration":
        configuration, changed = "d" * 64, (VARIANT, "answers")
    else:
        changed = ()
    digests |= {name: f"other {name}" for name in changed}
    file_sha = {name: hashlib.sha256(value.encode()).hexdigest() for name, value in digests.items()}
    variants = tuple(
        VariantRecord(name, "static", f"quantize/{name}.onnx", file_sha[name], 5, None, {}, ExportNotes())
        for name in ("fp32", VARIANT)
    )
    record = small_record(
        configuration_sha256=configuration,
        environment=world,
        stages=_chain(file_sha),
        variants=variants,
        exit_code=ExitCode.PASSED,
    )
    return Evidence(run, record, _measurements(loss, pace))


def write_night(root: Path, evidence: Evidence) -> RunFolder:
    """Write a night's evidence as a run folder that `read_evidence` takes."""
    run = RunFolder(root)
    write_measurements(run.measurements, evidence.measurements)
    files = {run.measurements.relative_to(root).as_posix(): record_of_file(run.measurements)}
    write_record(run, replace(evidence.record, files=files))
    return run


def _with_package(world: Environment) -> Environment:
    return replace(world, packages={**world.packages, "onnxruntime": "1.99.0"})


def _chain(sha: dict[str, str]) -> tuple[StageRecord, ...]:
    def stage(kind: str, subject: str | None, inputs: tuple[str, ...], output: str) -> StageRecord:
        path = f"data/{output}" if kind == "data" else output
        return StageRecord(
            kind, subject, "done", "k", {name: sha[name] for name in inputs}, {path: sha[output]}, 1.0, None
        )

    return (
        replace(stage("data", None, (), "data"), inputs={"source": sha["data"]}),
        stage("export", None, ("data",), "fp32"),
        stage("quantize", VARIANT, ("fp32", "data"), VARIANT),
        stage("validate", VARIANT, (VARIANT, "data"), "answers"),
    )


def _measurements(loss: float, pace: float) -> tuple[Measurement, ...]:
    took_ms = 10.0 * pace
    kernel = KERNEL_MS * pace
    return (
        accuracy(0.91, "fp32"),
        accuracy(0.90 - loss),
        replace(latency(took_ms), variant="fp32"),
        replace(against_kernel(kernel / took_ms), variant="fp32"),
        latency(took_ms / 3),
        speedup(),
    )
