"""Which executor the command line asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from foundation.errors import UsageError
from foundation.processor import usable_cores
from pipeline.run.executors.task import Executor

MOST_WORKERS = 128
"""Of one host; each is a process of a few hundred megabytes."""


@dataclass(frozen=True)
class Asked:
    """What was asked for.

    Attributes:
        workers: processes on this host; None where nobody said.
        ray: address of a Ray cluster; None for this host.
        share: URL through which a cluster's workers get the run's files; None where they see its folder.
    """

    workers: int | None = None
    ray: str | None = None
    share: str | None = None


@contextmanager
def opened_executor(asked: Asked) -> Iterator[Executor | None]:
    """Yield an executor while the block runs; None where one process does everything.

    Raises:
        UsageError: what was asked for does not fit together or is out of bounds, Ray is not installed, or there is no
            cluster at its address.
    """
    if asked.workers is not None and not 1 <= asked.workers <= MOST_WORKERS:
        raise UsageError(f"--workers: expected 1 to {MOST_WORKERS}, found {asked.workers}. Give as many as cores.")
    if asked.ray is not None and asked.workers is not None:
        raise UsageError("--workers: expected it without --ray, whose cluster has its own. Leave one of them out.")
    if asked.share is not None and asked.ray is None:
        raise UsageError("--share: expected --ray beside it: workers on this host see the run folder. Leave it out.")
    if asked.ray is not None:
        from pipeline.run.executors.ray_cluster import ray_cluster
        from pipeline.run.executors.share import Share

        if asked.share is not None:
            Share(asked.share).refuse_unwritable()
        with ray_cluster(asked.ray, asked.share) as cluster:
            yield cluster
    elif asked.workers is not None and asked.workers > 1:
        from pipeline.run.executors.local import local_workers

        with local_workers(asked.workers) as workers:
            yield workers
    else:
        yield None


def nights_at_once(asked: Asked, at_once: int | None, members: int) -> int:
    """Return how many members' nights are under way at the same time.

    Args:
        asked: where their tasks are done; without workers one night follows the other.
        at_once: what the command line says; None: as many as there are workers, with Ray as this host has cores.
        members: of the fleet.

    Raises:
        UsageError: it is out of bounds, or there are no workers for several nights.
    """
    if at_once is None:
        at_once = (asked.workers or 1) if asked.ray is None else usable_cores()
    elif not 1 <= at_once <= MOST_WORKERS:
        raise UsageError(f"--at-once: expected 1 to {MOST_WORKERS}, found {at_once}. Give as many as workers.")
    elif at_once > 1 and asked.ray is None and (asked.workers or 1) == 1:
        raise UsageError("--at-once: expected --workers or --ray beside it: the nights share them. Add one.")
    return min(at_once, members)
