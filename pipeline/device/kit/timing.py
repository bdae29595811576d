"""Times of a kit's model by the rules of the report: fresh processes, in turns drawn at random, warm-up left out.

A worker is this kit started with `worker`; it reads JSON lines and answers with JSON lines, as the run's own does.
"""

from __future__ import annotations

import gc
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Any

import numpy as np

from .answers import array_of, open_session, to_input
from .files import IMAGES, MODEL, Kit, KitError

KERNEL = 0
"""In place of a number of threads: the calibration kernel, arithmetic that no runtime can make faster or slower."""
BLOCK_WARMUP = 2
_KERNEL_FLOATS = 65_536
_KERNEL_STEPS = 32
_PREPROCESSED = 21


def time_model(
    kit: Kit, rules: Mapping[str, int], threads: Sequence[int], progress: Callable[[int, int], None]
) -> dict[int, dict[str, Any]]:
    """Return threads → what each process measured, and the kernel's under `KERNEL`.

    Args:
        kit: the kit.
        rules: processes, rounds, queries_per_round, warmup_queries and seed, as the run's latency settings have them.
        threads: of the sessions.
        progress: called with blocks done and in all.

    Raises:
        KitError: a process failed.
    """
    draw = random.Random(rules["seed"])
    legs = [*threads, KERNEL]
    total = rules["processes"] * rules["rounds"] * len(legs)
    found: dict[int, dict[str, Any]] = {leg: {"durations_ms": []} for leg in legs}
    for start in range(rules["processes"]):
        blocks: dict[int, list[list[float]]] = {leg: [] for leg in legs}
        with ExitStack() as stack:
            order = draw.sample(legs, len(legs))
            workers = {leg: stack.enter_context(_started(kit)) for leg in order}
            for leg in order:
                _ask(workers[leg], {"ready": True})
            for leg in order:
                for name, value in _ask(workers[leg], {"threads": leg}).items():
                    found[leg].setdefault(name, []).append(value)
            for leg in order:
                _ask(workers[leg], {"queries": max(1, rules["warmup_queries"])})
            for turn in range(rules["rounds"]):
                for place, leg in enumerate(draw.sample(legs, len(legs))):
                    answer = _ask(workers[leg], {"queries": BLOCK_WARMUP + rules["queries_per_round"]})
                    blocks[leg].append([round(ns / 1e6, 6) for ns in answer["durations_ns"][BLOCK_WARMUP:]])
                    progress((start * rules["rounds"] + turn) * len(legs) + place + 1, total)
            for leg in order:
                _ask(workers[leg], None)
        for leg in legs:
            found[leg]["durations_ms"].append(blocks[leg])
    return found


@contextmanager
def _started(kit: Kit) -> Iterator[subprocess.Popen[str]]:
    started = kit.root / "measure.py" if kit.root.is_dir() else kit.root
    command = [sys.executable, "-s", str(started), "worker"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _ask(worker: subprocess.Popen[str], message: Mapping[str, Any] | None) -> dict[str, Any]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    if message is None:
        return {}
    try:
        worker.stdin.write(json.dumps(message) + "\n")
        worker.stdin.flush()
        answer = json.loads(worker.stdout.readline() or '{"error": "it ended without a word"}')
    except (OSError, ValueError) as error:
        raise KitError(f"a process that was timed failed ({error}).") from error
    if "error" in answer:
        raise KitError(f"a process that was timed failed: {answer['error']}")
    return dict(answer)


# --- in a worker ---


def work(kit: Kit) -> None:
    """Answer the parent's requests until its end of the pipe closes."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints goes elsewhere
    try:
        sys.stdin.readline()
        import onnxruntime  # noqa: F401 (its import is no file's time)

        _reply(replies, {})
        threads = json.loads(sys.stdin.readline())["threads"]
        query = _open_kernel(replies) if threads == KERNEL else _open(kit, threads, replies)
        for line in sys.stdin:
            _reply(replies, {"durations_ns": _time(query, json.loads(line)["queries"])})
    except Exception as error:
        _reply(replies, {"error": str(error)[:300]})


def _open(kit: Kit, threads: int, replies: IO[str]) -> Callable[[], object]:
    facts, image = kit.facts(), array_of(kit, IMAGES)[:1]
    start = time.perf_counter_ns()
    session = open_session(kit.read(MODEL), threads)
    load_ms = (time.perf_counter_ns() - start) / 1e6
    feed = {facts["input"]: to_input(image, facts["preprocessing"])}

    def query() -> object:
        return session.run(None, feed)

    preparing = sorted(_time(lambda: to_input(image, facts["preprocessing"]), _PREPROCESSED))
    told = {
        "load_ms": load_ms,
        "preprocessing_ms": preparing[_PREPROCESSED // 2] / 1e6,
        "first_inference_ms": _time(query, 1)[0] / 1e6,
    }
    _reply(replies, told)
    return query


def _open_kernel(replies: IO[str]) -> Callable[[], object]:
    values = np.linspace(0.0, 1.0, _KERNEL_FLOATS, dtype=np.float32)
    kept = np.empty_like(values)

    def query() -> object:
        np.copyto(kept, values)
        for _ in range(_KERNEL_STEPS):
            np.multiply(kept, np.float32(0.5), out=kept)
            np.add(kept, values, out=kept)
        return None

    _reply(replies, {})
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


def _reply(replies: IO[str], message: Mapping[str, object]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()
