"""The executor whose tasks another process hands on: one line for each task, one line back for its outcome."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any

from pipeline.run.executors.task import ExecutorLostError, Outcome, Task


class RemoteExecutor:
    """What lies behind a pipe.

    Attributes:
        name: what it is, as one reads it.
        share: URL through which its workers get the run's files; None where they see its folder.
    """

    def __init__(self, name: str, share: str | None, send: Callable[[str], None]) -> None:
        """Open it.

        Args:
            name: as above.
            share: as above.
            send: writes one line to the other process; an OSError tells that it is gone.
        """
        self.name = name
        self.share = share
        self._send = send
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._pending: dict[int, Future[Outcome]] = {}
        self._next = 0
        self._is_lost = False

    def submit(self, task: Task) -> Future[Outcome]:
        """Hand a task over, which is begun where there is room."""
        future: Future[Outcome] = Future()
        with self._lock:
            if self._is_lost:
                future.set_exception(self._lost())
                return future
            self._next += 1
            self._pending[self._next] = future
            number = self._next
        try:
            with self._sending:  # several nights may hand over at once
                self._send(json.dumps({"number": number, "task": task.as_text()}) + "\n")
        except OSError:
            self.lose()
        return future

    def answer(self, values: Mapping[str, Any]) -> None:
        """Take what became of a task: its `outcome`, or in `lost` how the executor behind the other process went."""
        with self._lock:
            future = self._pending.pop(values["number"], None)
        if future is None:
            return
        if "lost" in values:
            future.set_exception(ExecutorLostError(values["lost"]))
        else:
            future.set_result(Outcome.of_text(values["outcome"]))

    def lose(self) -> None:
        """Tell all who wait that the other process is gone."""
        with self._lock:
            self._is_lost = True
            waiting, self._pending = list(self._pending.values()), {}
        for future in waiting:
            future.set_exception(self._lost())

    def _lost(self) -> ExecutorLostError:
        return ExecutorLostError(f"{self.name} is gone.")
