"""Latency of the shipped files: each session in a process of its own, all of them measured in turns.

In each round every variant answers a block of single-image queries, and the order moves on by one from round to
round; so a change of the clock or a busy neighbour meets all variants alike. A speed-up is a ratio within a round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from foundation.artifacts import OnnxModel
from foundation.errors import StageError
from foundation.files import JSON
from foundation.measurements import Measurement, Where
from foundation.metrics import METRICS
from foundation.progress import Progress, no_progress
from foundation.settings import Settings
from onnx_files.sessions import PROVIDERS
from stages.validate import statistics
from stages.validate.latency_processes import Worker, encoded, started_worker
from stages.validate.measurements import measured, not_measured

REFERENCE = "fp32"
QUANTILES: Mapping[str, float] = {"latency_p50_ms": 0.5, "latency_p90_ms": 0.9}
_TIMING_METRICS = tuple(name for name, row in METRICS.items() if row.inputs == "timing")

_BLOCK_WARMUP = 2
"""Queries at the start of each block that are not counted: they bring the caches back from the variant before."""


class LatencySettings(Settings):
    """On what, how often and how long the files are timed."""

    # strict=False: a list from YAML may stand for the tuple; the items stay strict.
    providers: tuple[str, ...] = Field(
        ("cpu",), min_length=1, strict=False, description=f"execution providers: {', '.join(PROVIDERS)}"
    )
    threads: tuple[int, ...] = Field((1,), min_length=1, strict=False, description="thread counts to measure with")
    # 32 × 32 = 1,024 queries, MLPerf's single-stream minimum for a 90th percentile.
    rounds: int = Field(32, ge=5, le=100_000, description="rounds; each variant answers one block in each")
    queries_per_round: int = Field(32, ge=1, le=100_000, description="timed queries of a block")
    warmup_queries: int = Field(16, ge=0, le=100_000, description="queries before the first round, not counted")
    resamples: int = Field(
        2000, ge=1000, le=100_000, description="bootstrap resamples behind the speed-up's interval"
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of the bootstrap")
    timeout_s: float = Field(120.0, gt=0.0, le=86_400.0, description="a block that takes longer counts as hung")

    @field_validator("providers")
    @classmethod
    def _providers_exist(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in value if name not in PROVIDERS]
        if unknown:
            raise ValueError(f"expected some of {', '.join(PROVIDERS)}, found {', '.join(unknown)}")
        return value

    @field_validator("threads")
    @classmethod
    def _threads_positive(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if min(value) < 1:
            raise ValueError("expected thread counts of at least 1")
        return value


@dataclass(frozen=True)
class _Timing:
    """What one worker measured: durations in ms [rounds, queries], or the reason why there are none."""

    durations_ms: NDArray[np.float64] | None
    nodes_on_provider: float = 0.0
    peak_memory_bytes: int = 0
    reason: str = ""


def measure_latency(
    models: Sequence[OnnxModel],
    image: NDArray[np.uint8],
    settings: LatencySettings,
    progress: Progress = no_progress,
) -> list[Measurement]:
    """Time every model on every provider and thread count, one image per query.

    A worker that crashes, hangs or finds no such provider costs its own variant's figures only: they have the value
    None and the reason.

    Args:
        models: the files; the one called fp32 is what speed-ups refer to.
        image: uint8 [channels, h, w], one image of the test split.
        settings: providers, threads, rounds.
        progress: called with (blocks done, blocks in all).
    """
    configurations = [(provider, threads) for provider in settings.providers for threads in settings.threads]
    total = len(configurations) * settings.rounds * len(models)
    rows: list[Measurement] = []
    for index, (provider, threads) in enumerate(configurations):
        of_all = partial(_tell, progress, index * settings.rounds * len(models), total)
        timings = time_in_turns(models, image, provider, threads, settings, of_all)
        for variant, timing in timings.items():
            rows += _measurements(variant, timing, timings.get(REFERENCE), provider, threads, settings)
    return rows


def _tell(progress: Progress, before: int, total: int, done: int, of_these: int) -> None:
    """Tell the progress of one place as that of all."""
    progress(before + done, total)


# --- numbers ---


def _measurements(
    variant: str,
    timing: _Timing,
    reference: _Timing | None,
    provider: str,
    threads: int,
    settings: LatencySettings,
) -> list[Measurement]:
    where = Where(provider=provider, split="test", threads=threads, batch_size=1)
    if timing.durations_ms is None:
        return [not_measured(name, variant, timing.reason, where, {}) for name in _TIMING_METRICS]
    remarks: dict[str, JSON] = {
        "nodes_on_provider": timing.nodes_on_provider,
        "rounds": settings.rounds,
        "queries_per_round": settings.queries_per_round,
        "warmup_queries": settings.warmup_queries,
    }
    rows = []
    for name, quantile in QUANTILES.items():
        estimate = statistics.quantile_estimate(timing.durations_ms.ravel(), quantile)
        if estimate is None:
            needed = statistics.smallest_sample(quantile)
            reason = f"{timing.durations_ms.size} queries are too few for this percentile: it takes {needed}"
            rows.append(not_measured(name, variant, reason, where, remarks))
        else:
            rows.append(measured(name, variant, estimate, where, remarks))
    rows.append(_speedup(variant, timing.durations_ms, reference, where, remarks, settings))
    peak, unit = float(timing.peak_memory_bytes), METRICS["peak_memory_bytes"].unit
    return [*rows, Measurement("peak_memory_bytes", peak, unit, variant, where, remarks=remarks)]


def _speedup(
    variant: str,
    durations_ms: NDArray[np.float64],
    reference: _Timing | None,
    where: Where,
    remarks: Mapping[str, JSON],
    settings: LatencySettings,
) -> Measurement:
    if reference is None or reference.durations_ms is None:
        reason = f"{REFERENCE} has no latency here: {reference.reason if reference else 'it is not among the models'}"
        return not_measured("latency_speedup", variant, reason, where, remarks)
    estimate = statistics.paired_ratio_estimate(
        np.median(reference.durations_ms, axis=1), np.median(durations_ms, axis=1), settings.resamples, settings.seed
    )
    return measured("latency_speedup", variant, estimate, where, remarks)


# --- turns ---


def time_in_turns(
    models: Sequence[OnnxModel],
    image: NDArray[np.uint8],
    provider: str,
    threads: int,
    settings: LatencySettings,
    progress: Progress,
) -> dict[str, _Timing]:
    """Time every file in a process of its own, a block of queries each in every round, in a rotating order.

    Args:
        models: the files.
        image: uint8 [channels, height, width].
        provider: where they run.
        threads: of each session.
        settings: rounds and queries.
        progress: called with (blocks done, blocks in all).
    """
    first = {"provider": provider, "threads": threads, "image": encoded(image[None])}
    workers: dict[str, Worker] = {}
    shares: dict[str, float] = {}
    failures: dict[str, str] = {}
    blocks: dict[str, list[list[int]]] = {model.variant: [] for model in models}
    peaks: dict[str, int] = {}

    def ask(variant: str, message: Mapping[str, JSON] | None) -> dict[str, Any]:
        """Return a worker's answer, or nothing once it has failed."""
        if variant in failures:
            return {}
        try:
            return workers[variant].ask(message, settings.timeout_s)
        except StageError as error:
            failures[variant] = str(error)
            return {}

    with ExitStack() as stack:
        # All of them first: they import side by side while the first one is still being asked.
        for model in models:
            workers[model.variant] = stack.enter_context(started_worker())
        for model in models:
            answer = ask(model.variant, {"model": str(model.path.resolve()), **first})
            shares[model.variant] = answer.get("nodes_on_provider", 0.0)
            if settings.warmup_queries:
                ask(model.variant, {"queries": settings.warmup_queries})
        for turn in range(settings.rounds):
            for place in range(len(models)):
                variant = models[(turn + place) % len(models)].variant
                answer = ask(variant, {"queries": _BLOCK_WARMUP + settings.queries_per_round})
                blocks[variant].append(answer.get("durations_ns", [])[_BLOCK_WARMUP:])
                progress(turn * len(models) + place + 1, settings.rounds * len(models))
        for model in models:
            peaks[model.variant] = ask(model.variant, None).get("peak_memory_bytes", 0)
    return {
        variant: _Timing(None, reason=failures[variant])
        if variant in failures
        else _Timing(np.array(rounds) / 1e6, shares[variant], peaks[variant])
        for variant, rounds in blocks.items()
    }
