"""The run folder as a worker sees it: itself, or a copy whose files are handed over through an object store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from foundation.run_folder import RunFolder
from pipeline.run.executors.task import Task


@contextmanager
def in_shared_folder(task: Task) -> Iterator[RunFolder]:
    """Yield the run folder of a task."""
    yield RunFolder(Path(task.run))
