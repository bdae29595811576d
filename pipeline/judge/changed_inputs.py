"""What went into two runs that was not the same: configuration, gates, data, code, packages, processor, its pace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from foundation.measurements import Measurement
from pipeline.judge.evidence import Evidence

InputKind = Literal["configuration", "gates", "data", "code", "processor", "packages", "machine"]

SLOWER = 1.1
"""The calibration kernel repeats within some per cent on a quiet machine; beyond this share it is told."""


@dataclass(frozen=True)
class ChangedInput:
    """One thing that differs between two runs.

    Attributes:
        kind: what it is.
        sentence: how it was and how it is.
    """

    kind: InputKind
    sentence: str


def changed_inputs(accepted: Evidence, current: Evidence) -> tuple[ChangedInput, ...]:
    """Return everything that is recorded of two runs' inputs and differs, in the order of `InputKind`.

    Args:
        accepted: the reference.
        current: the run that is judged.
    """
    before, now = accepted.record, current.record
    found = [
        ChangedInput(kind, f"Another {kind}: sha256 {(old or 'none')[:12]} → {(new or 'none')[:12]}.")
        for kind, old, new in _digests(accepted, current)
        if old != new
    ]
    if before.environment.cpu.model != now.environment.cpu.model:
        models = f"{before.environment.cpu.model} → {now.environment.cpu.model}"
        found.append(ChangedInput("processor", f"Another processor: {models}; latencies in ms are not compared."))
    packages = _other_versions(accepted, current)
    if packages:
        found.append(ChangedInput("packages", f"Other versions: {', '.join(packages)}."))
    pace = _pace(accepted, current)
    if pace is not None and not 1 / SLOWER <= pace <= SLOWER:
        found.append(
            ChangedInput("machine", f"Another pace of the machine: the calibration kernel took {pace:.2f} × as long.")
        )
    return tuple(found)


def _digests(accepted: Evidence, current: Evidence) -> Iterator[tuple[InputKind, str | None, str | None]]:
    before, now = accepted.record, current.record
    yield "configuration", before.configuration_sha256, now.configuration_sha256
    yield "gates", before.gates_sha256, now.gates_sha256
    yield "data", accepted.data_sha256, current.data_sha256
    code = before.environment.sources_sha256, now.environment.sources_sha256
    if None not in code:  # a run of before the digest was recorded says nothing of it
        yield "code", *code


def _other_versions(accepted: Evidence, current: Evidence) -> list[str]:
    before, now = accepted.packages, current.packages
    return [
        f"{name} {before.get(name, 'none')} → {now.get(name, 'none')}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name)
    ]


def _pace(accepted: Evidence, current: Evidence) -> float | None:
    """Return how long the calibration kernel took over how long it took then; None where it was not timed twice."""
    if accepted.record.environment.cpu.model != current.record.environment.cpu.model:
        return None
    then, now = (_kernel_ms(evidence.measurements) for evidence in (accepted, current))
    return None if then is None or now is None else now / then


def _kernel_ms(measurements: tuple[Measurement, ...]) -> float | None:
    """Return what the kernel took: a file's time is told as a multiple of it, and by itself."""
    times = {one.where: one.value for one in measurements if (one.metric, one.variant) == ("latency_p50_ms", "fp32")}
    for one in measurements:
        if (one.metric, one.variant) == ("latency_against_kernel", "fp32") and one.value:
            took_ms = times.get(one.where)
            if took_ms is not None:
                return took_ms * one.value
    return None
