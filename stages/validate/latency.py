"""Latency of the shipped files: measured in fresh processes, taken in turns, told with a known error rate.

A speed-up is the geometric mean over processes of what fp32's process took over what the file's took, each pair in
the same start and the same rounds, on the same provider, with the same threads and batch. `latency_turns` takes the
times, `latency_intervals` says what they are worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from foundation.artifacts import OnnxModel
from foundation.files import JSON
from foundation.measurements import Measurement, Where
from foundation.metrics import METRICS
from foundation.progress import Progress, no_progress
from foundation.settings import Settings
from onnx_files.sessions import PROVIDERS
from stages.validate import latency_intervals
from stages.validate.latency_processes import started_worker
from stages.validate.latency_turns import KERNEL, REFERENCE, Place, Start, Timing, time_in_turns
from stages.validate.measurements import measured, not_measured
from stages.validate.statistics import Estimate

QUANTILES: Mapping[str, float] = {"latency_p50_ms": 0.5, "latency_p90_ms": 0.9, "latency_p99_ms": 0.99}
_TIMING_METRICS = tuple(name for name, row in METRICS.items() if row.inputs == "timing")


class LatencySettings(Settings):
    """On what, how often and how long the files are timed."""

    # strict=False: a list from YAML may stand for the tuple; the items stay strict.
    providers: tuple[str, ...] = Field(
        ("cpu",), min_length=1, strict=False, description=f"execution providers: {', '.join(PROVIDERS)}"
    )
    threads: tuple[int, ...] = Field((1,), min_length=1, strict=False, description="thread counts to measure with")
    batch_sizes: tuple[int, ...] = Field((1,), min_length=1, strict=False, description="images per query")
    processes: int = Field(
        5, ge=5, le=50, description="fresh processes of each file; the interval is one over processes"
    )
    half_width: float = Field(
        0.02,
        gt=0.0,
        le=1.0,
        description="more processes are started until the interval of a speed-up is expected to be this narrow, as a "
        "fraction to either side",
    )
    time_budget_s: float = Field(
        30.0,
        ge=0.0,
        le=86_400.0,
        description="seconds for each provider, thread count and batch size within which more processes may be "
        "started; the first ones are timed in any case",
    )
    # 5 × 7 × 30 = 1,050 queries: MLPerf's single stream asks for 1,024, and p99 takes 368.
    rounds: int = Field(7, ge=5, le=100_000, description="rounds of a process; each file answers one block in each")
    queries_per_round: int = Field(30, ge=1, le=100_000, description="timed queries of a block")
    warmup_queries: int = Field(16, ge=0, le=100_000, description="first queries of a process, not counted")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the order in which files take turns")
    timeout_s: float = Field(120.0, gt=0.0, le=86_400.0, description="a block that takes longer counts as hung")

    @field_validator("providers")
    @classmethod
    def _providers_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in PROVIDERS]
        if unknown:
            raise ValueError(f"expected some of {', '.join(PROVIDERS)}, found {', '.join(unknown)}")
        return value

    @field_validator("threads", "batch_sizes")
    @classmethod
    def _counts_positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 1:
            raise ValueError("expected numbers of at least 1")
        return value


def measure_latency(
    models: Sequence[OnnxModel],
    image: NDArray[np.uint8],
    settings: LatencySettings,
    progress: Progress = no_progress,
    start: Start = started_worker,
) -> list[Measurement]:
    """Time every model on every provider, with every number of threads and images per query.

    A process that crashes, hangs or finds no such provider costs its own variant's figures only: they have the value
    None and the reason.

    Args:
        models: the files; the one called fp32 is what speed-ups refer to.
        image: uint8 [channels, h, w], one image of the test split.
        settings: providers, threads, processes.
        progress: called with (blocks done, blocks in all), the whole growing where more processes are needed.
        start: starts a process that answers as `latency_worker` does.
    """
    places = [
        Place(provider, threads, batch_size)
        for provider in settings.providers
        for threads in settings.threads
        for batch_size in settings.batch_sizes
    ]
    rows: list[Measurement] = []
    for index, place in enumerate(places):
        of_all = partial(_tell, progress, index, len(places))
        timings = time_in_turns(models, image, place, settings, of_all, start)
        kernel = timings.pop(KERNEL)
        for variant, timing in timings.items():
            rows += _measurements(variant, timing, timings.get(REFERENCE), kernel, place, settings)
    return rows


def _tell(progress: Progress, index: int, places: int, done: int, of_these: int) -> None:
    """Tell the progress of one place as that of all, which are taken to be alike."""
    progress(index * of_these + done, places * of_these)


def _measurements(
    variant: str,
    timing: Timing,
    reference: Timing | None,
    kernel: Timing,
    place: Place,
    settings: LatencySettings,
) -> list[Measurement]:
    where = Where(provider=place.provider, split="test", threads=place.threads, batch_size=place.batch_size)
    if timing.durations_ms is None:
        return [not_measured(name, variant, timing.reason, where, {}) for name in _TIMING_METRICS]
    first = settings.processes
    remarks: dict[str, JSON] = {
        "nodes_on_provider": timing.nodes_on_provider,
        "processes": len(timing.durations_ms),
        "rounds": settings.rounds,
        "queries_per_round": settings.queries_per_round,
        "warmup_queries": settings.warmup_queries,
    }
    each = {
        # The mean, not the median: a slow query keeps the next image waiting.
        "throughput_images_per_s": 1e3 * place.batch_size / timing.durations_ms.mean(axis=(1, 2)),
        "preprocessing_ms": timing.preprocessing_ms,
        "load_ms": timing.load_ms,
        "first_inference_ms": timing.first_inference_ms,
    }
    found = {name: latency_intervals.geometric_estimate(np.log(values), first) for name, values in each.items()}
    return [
        *_percentiles(variant, timing.durations_ms, where, remarks, first),
        *(
            _ratio(metric, against, variant, timing.durations_ms, of, where, remarks, first)
            for metric, against, of in (
                ("latency_speedup", REFERENCE, reference),
                ("latency_against_kernel", "the calibration kernel", kernel),
            )
        ),
        *(measured(name, variant, estimate, where, remarks) for name, estimate in found.items()),
        measured("peak_memory_bytes", variant, _memory(timing, first), where, remarks),
    ]


def _percentiles(
    variant: str, durations_ms: NDArray[np.float64], where: Where, remarks: Mapping[str, JSON], first: int
) -> list[Measurement]:
    of_processes = durations_ms.reshape(len(durations_ms), -1)
    rows = []
    for name, quantile in QUANTILES.items():
        estimate = latency_intervals.percentile_estimate(of_processes, quantile, first)
        if estimate is None:
            needed = latency_intervals.smallest_sample(quantile)
            reason = f"n too small: {durations_ms.size} queries, and this percentile takes {needed}"
            rows.append(not_measured(name, variant, reason, where, remarks))
        else:
            rows.append(measured(name, variant, estimate, where, remarks))
    return rows


def _ratio(
    metric: str,
    against: str,
    variant: str,
    durations_ms: NDArray[np.float64],
    reference: Timing | None,
    where: Where,
    remarks: Mapping[str, JSON],
    first: int,
) -> Measurement:
    if reference is None or reference.durations_ms is None:
        reason = f"{against} has no latency here: {reference.reason if reference else 'it is not among the models'}"
        return not_measured(metric, variant, reason, where, remarks)
    logs = latency_intervals.log_ratios(reference.durations_ms, durations_ms)
    return measured(metric, variant, latency_intervals.geometric_estimate(logs, first), where, remarks)


def _memory(timing: Timing, first: int) -> Estimate:
    """Return the mean over processes; no interval reaches below nothing."""
    found = latency_intervals.mean_estimate(timing.peak_memory_bytes, first)
    assert found.ci95 is not None
    return Estimate(found.value, (max(0.0, found.ci95[0]), found.ci95[1]), found.n)
