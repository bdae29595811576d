"""One member's night in a process of its own, whose tasks the process of the whole night hands to the workers.

`python -m pipeline.night.member` reads one line (whose night, where) and then what became of its tasks. It answers in
lines: what a person is told, tasks, and at the end the night.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from foundation.progress import Progress, no_progress
from pipeline.configuration_file import parse_configuration
from pipeline.flow import run_one_night
from pipeline.night.fleet import Member, one_night
from pipeline.run.executors.remote import RemoteExecutor


class _Telling:
    """Tells the other process what a terminal would show; a stage as it ends."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self.say = tell

    @contextmanager
    def stage(self, title: str) -> Iterator[Progress]:
        """Tell a stage and its seconds when it ends well."""
        started = time.perf_counter()
        yield no_progress
        self.say(f"✓ {title} {time.perf_counter() - started:.1f} s")


def _do(asked: IO[str], answers: IO[str]) -> None:
    sending = threading.Lock()

    def send(line: str) -> None:
        with sending:
            answers.write(line)
            answers.flush()

    def tell(text: str) -> None:
        send(json.dumps({"said": text}) + "\n")

    send(json.dumps({"ready": True}) + "\n")
    told = json.loads(asked.readline())
    path = Path(told["path"])
    configuration = parse_configuration(told["configuration"], str(path), Path("/"))  # its paths are absolute
    executor = RemoteExecutor(told["executor"], told["share"], send)
    threading.Thread(target=_hear, args=(asked, executor), daemon=True).start()
    run_one = partial(run_one_night, observer=_Telling(tell), executor=executor)
    night = one_night(Member(path, configuration, Path(told["root"])), run_one)
    send(json.dumps({"night": night.as_json()}) + "\n")


def _hear(asked: IO[str], executor: RemoteExecutor) -> None:
    for line in asked:
        executor.answer(json.loads(line))
    executor.lose()


if __name__ == "__main__":
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no answer
    _do(sys.stdin, own)
