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

from foundation.artifacts import OnnxModel
from foundation.files import JSON
from foundation.measurements import Measurement, Where
from foundation.metrics import METRICS
from foundation.progress import Progress, no_progress
from stages.validate import latency_intervals
from stages.validate.intervals.estimates import Estimate
from stages.validate.latency_processes import started_worker
from stages.validate.latency_settings import LatencySettings
from stages.validate.latency_turns import KERNEL, REFERENCE, Place, Start, Timing, time_in_turns
from stages.validate.measurements import measured, not_measured

QUANTILES: Mapping[str, float] = {"latency_p50_ms": 0.5, "latency_p90_ms": 0.9, "latency_p99_ms": 0.99}
_TIMING_METRICS = tuple(name for name, row in METRICS.items() if row.inputs == "timing")


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
