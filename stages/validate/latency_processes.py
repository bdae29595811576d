"""The processes that latency is measured in: one for each session, asked in JSON lines."""

from __future__ import annotations

import base64
import json
import queue
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from foundation.child import child_command, child_environment
from foundation.errors import StageError
from foundation.files import JSON


def worker_command() -> list[str]:
    """Return the command that starts a worker."""
    return child_command("stages.validate.latency_worker")


@dataclass(frozen=True)
class Worker:
    """A running worker process and the lines that it has answered."""

    process: subprocess.Popen[str]
    errors: IO[bytes]
    answers: queue.Queue[str] = field(default_factory=queue.Queue)

    def ask(self, message: Mapping[str, JSON] | None, timeout_s: float) -> dict[str, Any]:
        """Send a message (None: close its input) and return the answer.

        Raises:
            StageError: the worker ended, hung or answered with an error.
        """
        assert self.process.stdin is not None
        try:
            if message is None:
                self.process.stdin.close()
            else:
                self.process.stdin.write(json.dumps(message) + "\n")
                self.process.stdin.flush()
            line = self.answers.get(timeout=timeout_s)
        except queue.Empty as error:
            self.process.kill()
            raise StageError(f"the worker gave no answer within {timeout_s:g} s and was ended") from error
        except BrokenPipeError:
            line = ""
        if not line:
            raise StageError(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise StageError(answer["error"])
        return answer

    def _last_words(self) -> str:
        status = self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        return f"the worker ended with status {status} ({lines[-1] if lines else 'it said nothing'})"


@contextmanager
def started_worker() -> Iterator[Worker]:
    """Start a worker; it is ended, and its pipes are closed, with the block."""
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            worker_command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=child_environment(),
            text=True,
            encoding="utf-8",
        )
        worker = Worker(process, errors)
        reader = threading.Thread(target=_read_answers, args=(process.stdout, worker.answers), daemon=True)
        reader.start()
        try:
            yield worker
        finally:
            process.kill()
            process.wait()
            reader.join()
            for pipe in (process.stdin, process.stdout):
                _close(pipe)


def _read_answers(lines: IO[str], answers: queue.Queue[str]) -> None:
    """Put each line into the queue, and an empty one when the worker's output ends."""
    for line in lines:
        answers.put(line)
    answers.put("")


def _close(pipe: IO[str] | None) -> None:
    if pipe is None:
        return
    try:
        pipe.close()
    except BrokenPipeError:
        # What was still to be sent to a worker that has ended is of no use to anyone.
        return


def encoded(images: NDArray[np.uint8]) -> dict[str, JSON]:
    """Return images as a message holds them."""
    content = base64.b64encode(np.ascontiguousarray(images).tobytes()).decode()
    return {"shape": list(images.shape), "base64": content}
