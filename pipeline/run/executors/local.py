"""The executor on this host: so many processes, each doing one task after the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from pipeline.run.executors.task import RETRIES, Outcome, Task, WorkerDiedError, WorkerProcess


class LocalWorkers:
    """Processes on this host, each with a thread that waits for it.

    Attributes:
        name: how many there are.
        share: None: they see the run folder.
    """

    def __init__(self, workers: int) -> None:
        self.name = f"{workers} workers"
        self.share = None
        self._threads = ThreadPoolExecutor(workers)
        self._own = threading.local()
        self._processes: list[WorkerProcess] = []

    def submit(self, task: Task) -> Future[Outcome]:
        """Begin a task as soon as there is room."""
        return self._threads.submit(self._do, task.as_text())

    def end(self) -> None:
        """End the processes, whatever they do."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.end()
        self._threads.shutdown()
        for process in self._processes:
            process.close()

    def _do(self, text: str) -> Outcome:
        if not hasattr(self._own, "process"):
            self._own.process = WorkerProcess()
            self._processes.append(self._own.process)
        died = ""
        for _ in range(RETRIES + 1):
            try:
                return Outcome.of_text(self._own.process.do(text))
            except WorkerDiedError as error:
                died = str(error)
        return Outcome("died", f"its process died {RETRIES + 1} times ({died})")


@contextmanager
def local_workers(workers: int) -> Iterator[LocalWorkers]:
    """Yield an executor of so many processes; what still runs when the block ends is ended with it."""
    executor = LocalWorkers(workers)
    try:
        yield executor
    finally:
        executor.end()
