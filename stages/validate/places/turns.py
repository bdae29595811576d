"""Times at a real place: every file in fresh processes that take turns, so that a busy minute meets all of them.

A process there asks one file alone. In each round every file gets one, in an order that is drawn anew; the process is
the unit of every interval, and a speed-up pairs the processes of one round. See `stages.validate.latency`, where the
processes of a round also answer side by side, block by block: here they come one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from foundation.errors import StageError
from foundation.measurements import Measurement, Where
from foundation.progress import Progress, no_progress
from stages.validate import latency_intervals
from stages.validate.latency_turns import REFERENCE, turn_orders
from stages.validate.measurements import measured, not_measured
from stages.validate.places.asking import DEFAULT_STALL_S, ask
from stages.validate.places.place import Place
from stages.validate.places.protocol import Question

OF_TIMES = ("latency_p50_ms", "latency_speedup")
PROCESSES = 5
"""Fresh processes of each file, as the report's own latency has them at least."""
QUERIES = 30
"""Timed queries of a process, after those that warm it up."""


@dataclass(frozen=True)
class TimedFile:
    """How long a file took at a place; `durations_ms` None: `reason` says why nobody knows.

    Attributes:
        durations_ms: float64 [processes, queries].
        reason: why it was not timed.
    """

    durations_ms: NDArray[np.float64] | None
    reason: str = ""


def time_in_turns(
    name: str,
    place: Place,
    questions: Sequence[Question],
    progress: Progress = no_progress,
    stall_s: float = DEFAULT_STALL_S,
) -> dict[str, TimedFile]:
    """Time files at a real place; one that fails there costs itself alone.

    Args:
        name: of the place, for messages.
        place: where.
        questions: one for each file; their first images are what it is asked again.
        progress: called with (processes done, processes in all).
        stall_s: seconds without a sign of life after which the place has hung.

    Raises:
        NotMeasuredError: the place is not installed.
    """
    found: dict[str, list[tuple[float, ...]]] = {question.name: [] for question in questions}
    failures: dict[str, str] = {}
    orders = turn_orders(len(questions), PROCESSES, np.random.default_rng(0))
    for turn, order in enumerate(orders):
        for position, index in enumerate(order):
            question = questions[index]
            if question.name not in failures:
                took = _one_process(name, place, question, stall_s)
                if isinstance(took, str):
                    failures[question.name] = took
                else:
                    found[question.name].append(took)
            progress(turn * len(questions) + position + 1, orders.size)
    return {
        variant: TimedFile(None, failures[variant]) if variant in failures else TimedFile(np.array(times))
        for variant, times in found.items()
    }


def _one_process(name: str, place: Place, question: Question, stall_s: float) -> tuple[float, ...] | str:
    """Return what the queries of a fresh process took, in ms, or why it tells nothing."""
    rows = np.arange(QUERIES * question.batch) % question.n
    repeated = replace(question, inputs={key: values[rows] for key, values in question.inputs.items()})
    try:
        answered = ask(name, place, [repeated], stall_s=stall_s)
    except StageError as error:
        return str(error)
    if question.name in answered.errors:
        return answered.errors[question.name]
    took = answered.times_ms.get(question.name, ())
    if len(took) != QUERIES or min(took) <= 0:
        return f"expected the times of {QUERIES} queries, found {len(took)}, or one that is 0"
    return took


def measure_times(name: str, timed: Mapping[str, TimedFile], batch_sizes: Mapping[str, int]) -> list[Measurement]:
    """Return each file's median time there, and fp32's over it.

    Args:
        name: of the place.
        timed: by variant.
        batch_sizes: images per query, by variant.
    """
    rows = []
    for variant, one in timed.items():
        where = Where(split="test", threads=1, batch_size=batch_sizes[variant], place=name)
        if one.durations_ms is None:
            rows += [not_measured(metric, variant, one.reason, where, {}) for metric in OF_TIMES]
            continue
        remarks = {"processes": len(one.durations_ms), "queries_of_each": QUERIES}
        p50 = latency_intervals.percentile_estimate(one.durations_ms, 0.5, len(one.durations_ms))
        assert p50 is not None
        rows.append(measured("latency_p50_ms", variant, p50, where, remarks))
        fp32s = timed.get(REFERENCE)
        if fp32s is None or fp32s.durations_ms is None:
            continue  # one file of nobody's run, or a baseline that says why it has no time itself
        logs = latency_intervals.log_ratios(fp32s.durations_ms[:, None], one.durations_ms[:, None])
        estimate = latency_intervals.geometric_estimate(logs, len(logs))
        rows.append(measured("latency_speedup", variant, estimate, where, remarks))
    return rows
