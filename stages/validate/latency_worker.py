"""One session in a process of its own: `python -m stages.validate.latency_worker`, JSON lines in and out.

First line in: {"ready"}, answered by {} once ONNX Runtime is imported. Then {"model", "provider", "threads", "image":
{"shape", "base64"}}, or {"kernel"} for the calibration kernel, answered by {"nodes_on_provider", "idle_memory_bytes",
"load_ns", "preprocessing_ns", "first_inference_ns"}. Then {"queries": k} is answered by {"durations_ns": [k
numbers]}. When the input ends, the last line out is {"peak_memory_bytes"}. Anything that goes wrong is one line
{"error": sentence}, and the process ends.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from foundation.errors import EdgeproofError, NotMeasuredError
from onnx_files.sessions import nodes_on_provider, open_session, session_preprocessing

_KERNEL_FLOATS = 65_536
_KERNEL_STEPS = 32
"""Multiply and add on 256 KiB, half a millisecond of one core: long enough to be timed, and it stays in the cache."""
_PREPROCESSED = 21
"""Times that the images become the input; the middle one is told."""


def main() -> None:
    """Answer the parent's requests until its end of the pipe closes."""
    replies = _take_stdout()
    try:
        sys.stdin.readline()
        import onnxruntime  # noqa: F401 (what it takes is no file's time or memory)

        _reply(replies, {})
        request = json.loads(sys.stdin.readline())
        query = _open_kernel(replies) if "kernel" in request else _open(request, replies)
        for line in sys.stdin:
            _reply(replies, {"durations_ns": _time(query, json.loads(line)["queries"])})
        _reply(replies, {"peak_memory_bytes": _peak_memory_bytes()})
    except EdgeproofError as error:
        _reply(replies, {"error": str(error)})


def _open(request: Mapping[str, Any], replies: IO[str]) -> Callable[[], None]:
    """Open the file that is asked for, tell what that took, and return its query."""
    pixels = np.frombuffer(base64.b64decode(request["image"]["base64"]), dtype=np.uint8)
    images = pixels.reshape(request["image"]["shape"])
    idle_memory_bytes = _peak_memory_bytes()
    start = time.perf_counter_ns()
    session = open_session(Path(request["model"]), request["provider"], request["threads"])
    load_ns = time.perf_counter_ns() - start
    share = nodes_on_provider(session, request["provider"])
    if share == 0.0:
        raise NotMeasuredError(
            f"{request['provider']}: expected it to run some of the graph, found every node on the CPU. "
            "Leave this variant or this provider out of the latency settings."
        )
    entry, preprocessing = session.get_inputs()[0], session_preprocessing(session)
    if isinstance(entry.shape[0], int) and entry.shape[0] != len(images):
        raise NotMeasuredError(
            f"{request['model']}: expected a file that takes {len(images)} images at once, found one that takes "
            f"{entry.shape[0]}. Leave {len(images)} out of batch_sizes."
        )
    feed = {entry.name: preprocessing.to_input(images)}

    def query() -> None:
        session.run(None, feed)

    answer = {
        "nodes_on_provider": share,
        "idle_memory_bytes": idle_memory_bytes,
        "load_ns": load_ns,
        "preprocessing_ns": sorted(_time(lambda: preprocessing.to_input(images), _PREPROCESSED))[_PREPROCESSED // 2],
        "first_inference_ns": _time(query, 1)[0],
    }
    _reply(replies, answer)
    return query


def _open_kernel(replies: IO[str]) -> Callable[[], None]:
    """Return the calibration kernel; it neither loads nor prepares anything."""
    values = np.linspace(0.0, 1.0, _KERNEL_FLOATS, dtype=np.float32)
    kept = np.empty_like(values)

    def query() -> None:
        np.copyto(kept, values)
        for _ in range(_KERNEL_STEPS):
            np.multiply(kept, np.float32(0.5), out=kept)
            np.add(kept, values, out=kept)

    nothing = ("load_ns", "preprocessing_ns", "first_inference_ns")
    answer = {"nodes_on_provider": 1.0, "idle_memory_bytes": _peak_memory_bytes(), **dict.fromkeys(nothing, 0)}
    _reply(replies, answer)
    return query


def _time(query: Callable[[], object], queries: int) -> list[int]:
    durations = [0] * queries
    gc.disable()
    for index in range(queries):
        start = time.perf_counter_ns()
        query()
        durations[index] = time.perf_counter_ns() - start
    gc.enable()
    return durations


def _take_stdout() -> IO[str]:
    """Return the real stdout, and send whatever a library prints to stderr instead."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def _reply(replies: IO[str], message: Mapping[str, object]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def _peak_memory_bytes() -> int:
    # getrusage's figure would count the parent's memory at the moment of the fork, so the kernel's own comes first.
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main()
