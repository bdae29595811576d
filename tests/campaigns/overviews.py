"""Kill the writing of the overview over 20 models of 1,000 nights each, at moments that are spread over all of it.

Expected: no history changes by a byte, and all its nights can be read; every file of the overview is the one of
before or the new one, whole; and writing once more gives the bytes of an undisturbed writing and leaves nothing
half-written.
"""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from campaign import Tally, tell
from forked import files_of

from foundation.files import remove_leftovers
from pipeline.night.nights import HISTORY_NAME
from pipeline.night.overview import FOLDER_NAME, histories_below, write_overview
from pipeline.night.status_files import write_status

MODELS, NIGHTS = 20, 1000
KILLS = 200
_FIRST = datetime(2024, 1, 1, 2, tzinfo=UTC)
_HEADLINE = ("balanced_accuracy/fp32", "balanced_accuracy/static-int8", "latency_p50_ms/static-int8")


def overviews(scratch: Path, budget: int) -> list[Tally]:
    """Kill at 200 moments, or at as many as the budget has."""
    root = scratch / "fleet"
    _write_histories(root)
    histories = files_of(root)
    _write(root, NIGHTS - 1)
    before = files_of(root / FOLDER_NAME)
    begun = time.monotonic()
    _write(root, NIGHTS)
    took_s = time.monotonic() - begun
    whole = files_of(root / FOLDER_NAME)
    assert whole.keys() == before.keys()
    assert whole != before
    finds: list[str] = []
    struck, moments = 0, budget or KILLS
    for number in range(moments):
        for path, content in before.items():
            (root / FOLDER_NAME / path).write_bytes(content)
        struck += _kill(root, took_s * (number + 0.5) / moments)
        for find in _found(root, histories, before, whole):
            tell(finds, f"overviews, kill {number + 1} of {moments}: {find}")
    return [Tally("overview", "SIGKILL", moments, struck, tuple(finds))]


def _found(root: Path, histories: dict[str, bytes], before: dict[str, bytes], whole: dict[str, bytes]) -> list[str]:
    finds = []
    killed = files_of(root / FOLDER_NAME)
    if torn := [path for path in whole if killed.get(path) not in (before[path], whole[path])]:
        finds.append(f"neither old nor new: {', '.join(torn)}")
    read = histories_below(root)
    if len(read) != MODELS or any(len(one.nights) != NIGHTS or one.unreadable for one in read.values()):
        finds.append("a history cannot be read")
    _write(root, NIGHTS)
    if (again := files_of(root / FOLDER_NAME)) != whole:
        differing = sorted(path for path in again.keys() | whole if again.get(path) != whole.get(path))
        finds.append(f"the next writing leaves otherwise: {', '.join(differing)}")
    left = {path: content for path, content in files_of(root).items() if not path.startswith(FOLDER_NAME)}
    if left != histories:
        finds.append("a file beside the overview changed")
    return finds


def _kill(root: Path, after_s: float) -> bool:
    """Write in a fork, kill it after so long, and return whether it was still writing."""
    process = os.fork()
    if process == 0:
        try:
            _write(root, NIGHTS)
        finally:
            os._exit(0)
    time.sleep(after_s)
    os.kill(process, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(process, 0)[1])


def _write(root: Path, days: int) -> None:
    """Do what `edgeproof nights` does, at a given time."""
    remove_leftovers(root / FOLDER_NAME)
    write_status(root)
    write_overview(root, _FIRST + timedelta(days=days, hours=7))


def _write_histories(root: Path) -> None:
    """Write histories as `record_start` and `record_finish` do, without a sync for each of 40,000 lines."""
    rng = np.random.default_rng(0)
    for model in range(MODELS):
        lines = []
        level = np.cumsum(rng.random(NIGHTS) < 0.002) * -0.03
        for night in range(NIGHTS):
            began = _FIRST + timedelta(days=night)
            run = began.strftime("%Y-%m-%dT%H%M%SZ")
            lines.append({"event": "started", "run": run, "configuration_sha256": "0" * 64, "time_utc": str(began)})
            if rng.random() < 0.01:  # killed
                continue
            values = 0.9 + level[night] + rng.normal(0, 0.004, len(_HEADLINE))
            lines.append(
                {
                    "event": "finished",
                    "run": run,
                    "time_utc": str(began + timedelta(minutes=9)),
                    "exit_code": int(rng.random() < 0.02),
                    "comparison": "3 compared",
                    "headline": dict(zip(_HEADLINE, values.tolist(), strict=True)),
                    "intervals": {},
                    "suspects": [],
                    "error": None,
                }
            )
        folder = root / f"model-{model:02}"
        folder.mkdir(parents=True)
        (folder / HISTORY_NAME).write_text("".join(json.dumps(line) + "\n" for line in lines))
