"""The child that speaks to Ray: takes tasks as lines, hands them to the cluster, answers with their outcomes."""

from __future__ import annotations

import json
import os
import sys
import threading
from concurrent.futures import Future
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when Ray is imported: nothing is told to its makers

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline.run.executors.ray_task import do_in_own_process
from pipeline.run.executors.task import RETRIES, Outcome, WorkerDiedError

_lock = threading.Lock()


def _told(values: dict[str, Any], answers: int) -> None:
    with _lock:
        os.write(answers, (json.dumps(values) + "\n").encode())


def _outcome(future: Future[str]) -> Outcome:
    try:
        return Outcome.of_text(future.result())
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, WorkerDiedError):
            return Outcome("died", f"its process died {RETRIES + 1} times ({cause})")
        return Outcome("refused", f"a worker of the cluster could not begin ({type(cause).__name__}: {cause})")
    except RayError as error:
        first = (str(error).strip().splitlines() or ["it said nothing"])[0]
        return Outcome("died", f"Ray gave it up after {RETRIES + 1} attempts ({type(error).__name__}: {first})")


def serve(address: str, answers: int) -> None:
    """Join a cluster, say so, and do what is asked until the input ends."""
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        cpus = ray.cluster_resources().get("CPU", 0.0)
    except Exception as error:  # whatever Ray raises: other versions, a port of something else
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        _told({"error": f"{first.rstrip('.')}."}, answers)
        return
    if cpus < 1:
        _told({"error": "none of its nodes has a CPU for tasks."}, answers)
        return
    _told({"cpus": cpus}, answers)
    # Ray's own retries: after a lost process or node, and after a process that ended without an answer.
    do = ray.remote(do_in_own_process).options(max_retries=RETRIES, retry_exceptions=[WorkerDiedError])
    for line in sys.stdin:
        asked = json.loads(line)

        def answer(future: Future[str], number: int = asked["number"]) -> None:
            _told({"number": number, "outcome": _outcome(future).as_text()}, answers)

        do.remote(asked["task"]).future().add_done_callback(answer)


if __name__ == "__main__":
    own = os.dup(1)
    os.dup2(2, 1)  # what Ray prints is no answer
    serve(sys.argv[1], own)
