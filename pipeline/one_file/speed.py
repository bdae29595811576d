"""How fast a compiled file answers beside the float file it was made from: a short comparison, in fresh processes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from foundation.artifacts import OnnxModel
from foundation.progress import Progress
from onnx_files.sessions import open_session, session_preprocessing
from stages.validate.latency_intervals import geometric_estimate, log_ratios
from stages.validate.latency_processes import started_worker
from stages.validate.latency_settings import LatencySettings
from stages.validate.latency_turns import REFERENCE, Place, Start, Timing, time_in_turns

SLOWER_THAN = 1 / 1.05
"""A file counts as slower where its whole interval lies below this: nobody notices a smaller loss."""
_COMPILED = "compiled"
_PROCESSES = 3
_BLOCK_S = 0.1
_MOST_QUERIES = 50
_LONG_QUERY_S = 0.3


class _BriefSettings(LatencySettings):
    """Two to four seconds in all for a usual classifier; a run of a configuration takes five processes and more."""

    processes: int = Field(_PROCESSES, ge=2)
    rounds: int = Field(3, ge=1)
    warmup_queries: int = 2
    time_budget_s: float = 0.0


@dataclass(frozen=True)
class Speed:
    """The float file's time for a query over the compiled file's, on one thread.

    Attributes:
        ratio: geometric mean over processes, more is faster; None where nothing was measured.
        ci95: its interval, over processes.
        processes: of each file.
        reason: why nothing was measured.
        of_processes: the ratio of each process.
    """

    ratio: float | None
    ci95: tuple[float, float] | None
    processes: int
    reason: str = ""
    of_processes: tuple[float, ...] = ()

    @property
    def is_slower(self) -> bool:
        """Whether the compiled file is slower beyond doubt."""
        return self.ci95 is not None and self.ci95[1] < SLOWER_THAN

    @property
    def is_faster(self) -> bool:
        """Whether the compiled file is faster beyond doubt."""
        return self.ci95 is not None and self.ci95[0] > 1

    def is_faster_than(self, other: Speed) -> bool:
        """Return whether this file is faster than another one beyond doubt.

        Args:
            other: of the same measurement, so that the same processes took turns.
        """
        return speed_of(np.log(self.of_processes) - np.log(other.of_processes)).is_faster


def speed_of(logs: NDArray[np.float64]) -> Speed:
    """Return the speed that processes found.

    Args:
        logs: [processes], the logarithm of the float file's time over the compiled file's, of two processes or more.
    """
    estimate = geometric_estimate(logs, len(logs))
    return Speed(estimate.value, estimate.ci95, estimate.n, of_processes=tuple(np.exp(logs).tolist()))


def measure_speed(
    reference: OnnxModel,
    compiled: Sequence[OnnxModel],
    image: NDArray[np.uint8],
    batch_size: int,
    progress: Progress,
    start: Start = started_worker,
) -> tuple[Speed, ...]:
    """Time the float file and others in processes that take turns, three of each.

    Args:
        reference: the float file, with its preprocessing in the metadata.
        compiled: the files made from it, likewise.
        image: uint8 [channels, height, width].
        batch_size: images per query, as many as the files take at once.
        progress: called with blocks of queries done and in all.
        start: starts a process that answers as `latency_worker` does.

    Returns:
        One for each compiled file, in their order.
    """
    seconds = _seconds_of_a_query(reference.path, image, batch_size)
    settings = _BriefSettings(
        queries_per_round=int(np.clip(_BLOCK_S / seconds, 1, _MOST_QUERIES)),
        rounds=1 if seconds > _LONG_QUERY_S else 3,
    )
    # Names of their own: the files may have any, that of the reference among them.
    models = [replace(model, variant=f"{_COMPILED}-{number}") for number, model in enumerate(compiled)]
    timed = (replace(reference, variant=REFERENCE), *models)
    timings = time_in_turns(timed, image, Place("cpu", 1, batch_size), settings, progress, start)
    return tuple(_speed(timings[REFERENCE], timings[model.variant]) for model in models)


def _speed(expected: Timing, found: Timing) -> Speed:
    if expected.durations_ms is None or found.durations_ms is None:
        return Speed(None, None, 0, expected.reason or found.reason)
    return speed_of(log_ratios(expected.durations_ms, found.durations_ms))


def _seconds_of_a_query(path: Path, image: NDArray[np.uint8], batch_size: int) -> float:
    session = open_session(path, "cpu", 1)
    pixels = np.repeat(image[None], batch_size, axis=0)
    feed = {session.get_inputs()[0].name: session_preprocessing(session).to_input(pixels)}
    session.run(None, feed)
    began = time.perf_counter()
    session.run(None, feed)
    return time.perf_counter() - began
