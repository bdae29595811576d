"""What a worker is told and what it answers, and the process that it is."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import IO, Literal, Protocol

from foundation.child import child_command, child_environment
from foundation.errors import EdgeproofError
from foundation.files import JSON
from pipeline.run.executors.units import Unit

RETRIES = 2
"""A task whose process dies is begun so many times again: by us on this host, by Ray on a cluster."""


@dataclass(frozen=True)
class Task:
    """One unit of one run, as a worker is told of it.

    Attributes:
        configuration: of the run, as JSON values with absolute paths.
        run: its folder.
        share: where the folder's files are handed over; None where the worker sees the folder itself.
        files: path relative to the run folder → sha256 of what the worker fetches from the share.
        unit: what to do.
        stage: name of the first stage that is not there.
        key: that it must have.
        software: name → version, and the digest of our own sources: what must be the same there.
        processor: likewise.
    """

    configuration: Mapping[str, JSON]
    run: str
    share: str | None
    files: Mapping[str, str]
    unit: Unit
    stage: str
    key: str
    software: Mapping[str, str | None]
    processor: str

    def as_text(self) -> str:
        """Return the task as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of_text(cls, text: str) -> Task:
        """Return the task that a text holds."""
        values = json.loads(text)
        return cls(**{**values, "unit": Unit(**values["unit"])})


@dataclass(frozen=True)
class Outcome:
    """How a task ended.

    Attributes:
        status: done; refused: this worker would compute another result; failed: a stage of it did; disk: a write was
            refused; died: its process died each time.
        said: why it was not done.
        host: where it ran; "" where nobody knows.
        files: path relative to the run folder → sha256 of what it handed over through a share.
    """

    status: Literal["done", "refused", "failed", "disk", "died"]
    said: str = ""
    host: str = ""
    files: Mapping[str, str] = field(default_factory=dict)

    def as_text(self) -> str:
        """Return the outcome as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def of_text(cls, text: str) -> Outcome:
        """Return the outcome that a text holds."""
        return cls(**json.loads(text))


class WorkerDiedError(Exception):
    """A worker's process ended without an answer."""


class ExecutorLostError(EdgeproofError):
    """The executor itself is gone; what it had not done is left to whoever asked."""


class Executor(Protocol):
    """Where tasks run."""

    @property
    def name(self) -> str:
        """What it is, as one reads it: "2 workers"."""

    @property
    def share(self) -> str | None:
        """Where the files of a run are handed over; None where its workers see the run folder itself."""

    def submit(self, task: Task) -> Future[Outcome]:
        """Begin a task, as soon as there is room; the future may raise ExecutorLostError."""


class WorkerProcess:
    """A process that does one task after the other; started with the first one, and anew after it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[bytes] | None = None
        self._lock = threading.Lock()
        self._is_ended = False

    def do(self, text: str) -> str:
        """Do a task and return its outcome, both as JSON in one line; for one thread, which the process ends with.

        Raises:
            WorkerDiedError: the process ended without an answer.
        """
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(text + "\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if not line.endswith("\n"):
            raise WorkerDiedError(self._last_words(process))
        return line

    def end(self) -> None:
        """End the process, whatever it does, for good; whoever waits for it is told that it died."""
        with self._lock:
            self._is_ended = True
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def close(self) -> None:
        """Close what a process that was ended has left open, when nobody waits for it any more."""
        if self._process is not None:
            self._last_words(self._process)

    def _started(self) -> subprocess.Popen[str]:
        with self._lock:
            if self._is_ended:
                raise WorkerDiedError("it was ended")
            if self._process is None:
                self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the process runs
                self._process = subprocess.Popen(
                    child_command("pipeline.run.executors.worker"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    env=child_environment(),
                    text=True,
                    encoding="utf-8",
                )
            return self._process

    def _last_words(self, process: subprocess.Popen[str]) -> str:
        status = process.wait()
        assert self._errors is not None
        assert process.stdin is not None
        assert process.stdout is not None
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        self._errors.close()
        process.stdout.close()
        with suppress(BrokenPipeError):
            process.stdin.close()
        with self._lock:
            self._process = None
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return f"{how}; {said[-1] if said else 'it said nothing'}"
