"""Files timed in turns: in each start every file gets a fresh process, and they answer blocks of queries in rounds.

The order of the starts and of the blocks of each round is drawn anew each time, from the seed; so a change of the
clock or a busy neighbour meets all files alike, and no file always comes after the same other one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from foundation.artifacts import OnnxModel
from foundation.errors import StageError
from foundation.files import JSON
from foundation.progress import Progress
from stages.validate.latency_intervals import log_ratios, processes_needed
from stages.validate.latency_processes import encoded, started_worker
from stages.validate.latency_settings import LatencySettings

REFERENCE = "fp32"
KERNEL = "calibration-kernel"
"""What is timed beside the files and is none: arithmetic that no runtime and no file can make faster or slower."""
BLOCK_WARMUP = 2
"""Queries at the start of each block that are not counted: they bring the caches back from the file before."""
MOST_PROCESSES = 50
"""Fresh processes per file, however wide the interval still is."""

Floats = NDArray[np.float64]


class Asked(Protocol):
    """A process that answers messages; `latency_worker` says which."""

    def ask(self, message: Mapping[str, JSON] | None, timeout_s: float) -> dict[str, Any]:
        """Return the answer to a message; raises StageError once the process has failed."""


Start = Callable[[], AbstractContextManager[Asked]]


@dataclass(frozen=True)
class Place:
    """Where files are timed.

    Attributes:
        provider: of the sessions.
        threads: of each session.
        batch_size: images per query.
    """

    provider: str
    threads: int
    batch_size: int


@dataclass(frozen=True)
class Timing:
    """What the processes of one file measured; `durations_ms` None: `reason` says why there is nothing.

    Attributes:
        durations_ms: float64 [processes, rounds, queries].
        load_ms: float64 [processes], from the file on the disk to a session.
        first_inference_ms: float64 [processes], the first query of a session.
        preprocessing_ms: float64 [processes], median time from uint8 images to the input tensor.
        peak_memory_bytes: float64 [processes], highest resident memory less what the process held before the file.
        nodes_on_provider: share of the graph, 0 to 1.
        reason: why the file was not timed.
    """

    durations_ms: Floats | None
    load_ms: Floats
    first_inference_ms: Floats
    preprocessing_ms: Floats
    peak_memory_bytes: Floats
    nodes_on_provider: float = 0.0
    reason: str = ""


@dataclass(frozen=True)
class _Process:
    """What one process measured."""

    durations_ns: list[list[int]]
    opened: Mapping[str, Any]
    peak_memory_bytes: int


def turn_orders(files: int, rounds: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Return whose turn it is, [rounds, files]: in each row every file once, in an order of its own."""
    return random.permuted(np.tile(np.arange(files), (rounds, 1)), axis=1)


def time_in_turns(
    models: Sequence[OnnxModel],
    image: NDArray[np.uint8],
    place: Place,
    settings: LatencySettings,
    progress: Progress,
    start: Start = started_worker,
) -> dict[str, Timing]:
    """Time every file, and the calibration kernel, in fresh processes, at least `settings.processes` of them.

    After that many starts it is decided how many more the widest speed-up needs, and how many the time budget allows.

    Args:
        models: the files; the one called fp32 is what speed-ups refer to.
        image: uint8 [channels, height, width]; a batch is copies of it.
        place: where they run.
        settings: processes, rounds and queries.
        progress: called with (blocks done, blocks in all so far known).
        start: starts a process that answers as `latency_worker` does.
    """
    random = np.random.default_rng(settings.seed)
    failures: dict[str, str] = {}
    found: dict[str, list[_Process]] = {variant: [] for variant in (*(model.variant for model in models), KERNEL)}
    began, done, planned = time.monotonic(), 0, settings.processes
    images = np.repeat(image[None], place.batch_size, axis=0)
    while done < planned:

        def tell(blocks: int, of: int, done: int = done, planned: int = planned) -> None:
            progress(done * of + blocks, planned * of)

        one = _one_start(models, images, place, settings, random, failures, start, tell)
        for variant, process in one.items():
            found[variant].append(process)
        done += 1
        if done == settings.processes:
            affordable = int((settings.time_budget_s / max(time.monotonic() - began, 1e-9)) * done)
            planned = max(done, min(_needed(found, failures, settings.half_width), affordable, MOST_PROCESSES))
    return {
        variant: _failed(failures[variant]) if variant in failures else _timing(processes)
        for variant, processes in found.items()
    }


def _one_start(
    models: Sequence[OnnxModel],
    images: NDArray[np.uint8],
    place: Place,
    settings: LatencySettings,
    random: np.random.Generator,
    failures: dict[str, str],
    start: Start,
    progress: Progress,
) -> dict[str, _Process]:
    """Return what a fresh process of every file that has not failed measured; add to `failures`."""
    first = {"provider": place.provider, "threads": place.threads, "image": encoded(images)}
    opening: dict[str, dict[str, JSON]] = {
        **{model.variant: {"model": str(model.path.resolve()), **first} for model in models},
        KERNEL: {"kernel": True},
    }
    workers: dict[str, Asked] = {}

    def ask(variant: str, message: Mapping[str, JSON] | None) -> dict[str, Any]:
        """Return a worker's answer, or nothing once it has failed."""
        if variant in failures:
            return {}
        try:
            return workers[variant].ask(message, settings.timeout_s)
        except StageError as error:
            failures[variant] = str(error)
            return {}

    alive = [variant for variant in opening if variant not in failures]
    blocks: dict[str, list[list[int]]] = {variant: [] for variant in alive}
    with ExitStack() as stack:
        order = [alive[index] for index in random.permutation(len(alive))]
        # All of them first, and only then a file: the imports of one would slow down the loading of another.
        for variant in order:
            workers[variant] = stack.enter_context(start())
        for variant in order:
            ask(variant, {"ready": True})
        opened = {variant: ask(variant, opening[variant]) for variant in order}
        for variant in order if settings.warmup_queries else ():
            ask(variant, {"queries": settings.warmup_queries})
        for turn, row in enumerate(turn_orders(len(alive), settings.rounds, random)):
            for position, index in enumerate(row):
                answer = ask(alive[index], {"queries": BLOCK_WARMUP + settings.queries_per_round})
                blocks[alive[index]].append(answer.get("durations_ns", [])[BLOCK_WARMUP:])
                progress(turn * len(alive) + position + 1, settings.rounds * len(alive))
        peaks = {variant: ask(variant, None).get("peak_memory_bytes", 0) for variant in order}
    return {
        variant: _Process(blocks[variant], opened[variant], peaks[variant])
        for variant in alive
        if variant not in failures
    }


def _needed(found: Mapping[str, list[_Process]], failures: Mapping[str, str], half_width: float) -> int:
    """Return how many processes the widest speed-up asks for; those that there are where none is known."""
    durations = {variant: _timing(of).durations_ms for variant, of in found.items() if variant not in failures}
    reference = durations.pop(REFERENCE, None)
    durations.pop(KERNEL, None)
    return max(
        (
            processes_needed(log_ratios(reference, of), half_width)
            for of in durations.values()
            if reference is not None and of is not None
        ),
        default=0,
    )


def _timing(processes: Sequence[_Process]) -> Timing:
    def each(name: str) -> Floats:
        return np.array([process.opened[name] for process in processes], dtype=np.float64)

    return Timing(
        durations_ms=np.array([process.durations_ns for process in processes], dtype=np.float64) / 1e6,
        load_ms=each("load_ns") / 1e6,
        first_inference_ms=each("first_inference_ns") / 1e6,
        preprocessing_ms=each("preprocessing_ns") / 1e6,
        peak_memory_bytes=np.array([process.peak_memory_bytes for process in processes]) - each("idle_memory_bytes"),
        nodes_on_provider=float(processes[0].opened["nodes_on_provider"]),
    )


def _failed(reason: str) -> Timing:
    none = np.zeros(0)
    return Timing(None, none, none, none, none, reason=reason)
