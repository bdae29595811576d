"""What a process of Ray's does with a task: hands it to a worker of ours, which stays for the next one."""

from __future__ import annotations

from functools import cache

from pipeline.run.executors.task import WorkerProcess


def do_in_own_process(text: str) -> str:
    """Do a task and return its outcome, both as JSON; Ray begins it again where the process died.

    Raises:
        WorkerDiedError: the process ended without an answer.
    """
    return _own_process().do(text)


@cache
def _own_process() -> WorkerProcess:
    return WorkerProcess()
