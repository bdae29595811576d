"""Send TERM, HUP and INT to a run while it decodes, trains, quantizes and measures latency.

Expected: it ends within two seconds with a sentence and the code 128 + n, and two seconds later none of its children
is left. The signal goes to the main process alone, as `kill` and a service manager send it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from campaign import Tally, tell
from PIL import Image
from small_commands import CONFIGURATION
from whole_process import descendants, processor_seconds, start, still_alive

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
_WITHIN_S = 2.0
_BEGINS_WITHIN_S = 240.0
_STARTED_S = 2.5
"""Of processor time; a worker that is still importing looks for its parent when it has done so."""


def _long(folder: Path, **changes: Any) -> None:
    """Write a configuration each of whose stages takes so long that a signal meets it."""
    (folder / "tiny.json").write_text(json.dumps({**CONFIGURATION, **changes}))


def _decoding(folder: Path) -> None:
    draw = np.random.default_rng(0)
    for label in ("a", "b"):
        (folder / "images" / label).mkdir(parents=True)
        for number in range(12):
            pixels = draw.integers(0, 255, (1600, 1600, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / label / f"{number}.png")
        for number in range(12, 400):
            (folder / "images" / label / f"{number}.png").hardlink_to(
                folder / "images" / label / f"{number % 12}.png"
            )
    source = {"name": "folder", "root": "images"}
    _long(folder, data={**CONFIGURATION["data"], "source": source, "workers": 2, "duplicates": "merge"})


def _training(folder: Path) -> None:
    _long(folder, train={**CONFIGURATION["train"], "epochs": 5000})


def _quantizing(folder: Path) -> None:
    tuned = {"method": "tuned", "trials": 5000, "minutes": 60, "images": 4, "scored_images": 8, "explained_images": 2}
    _long(folder, variants={"tuned": tuned}, gates=[])


def _measuring(folder: Path) -> None:
    _long(folder, validation={**CONFIGURATION["validation"], "latency": {"rounds": 100_000}})


def _children_work(text: str) -> Callable[[int, Path], bool]:
    """Tell when two children have computed for so long that they are past their imports."""

    def work(process: int, folder: Path) -> bool:
        workers = [child for child, line in descendants(process).items() if text in line]
        return sum(processor_seconds(child) > _STARTED_S for child in workers) >= 2

    return work


def _has_file(name: str) -> Callable[[int, Path], bool]:
    return lambda process, folder: (folder / "runs" / "tiny" / name).exists()


STAGES: dict[str, tuple[Callable[[Path], None], Callable[[int, Path], bool]]] = {
    "decoding": (_decoding, _children_work("spawn_main")),
    "training": (_training, _has_file("train/state.pt")),
    "quantizing": (_quantizing, _has_file("quantize/tuned.search.jsonl")),
    "measuring latency": (_measuring, _children_work("latency_worker")),
}
"""Stage → what makes it long, and how one sees from outside that it has begun."""


def signals(scratch: Path, budget: int) -> list[Tally]:
    """Send each signal in each stage, or as many of them as the budget has."""
    pairs = [(stage, number) for number in SIGNALS for stage in STAGES][: budget or None]
    tallies = []
    for stage in STAGES:
        numbers = [number for found, number in pairs if found == stage]
        finds: list[str] = []
        for number in numbers:
            folder = scratch / f"{stage.replace(' ', '-')}-{number.name}"
            folder.mkdir()
            for find in _one_signal(stage, number, folder):
                tell(finds, f"signals, {number.name} while {stage}: {find}")
        if numbers:
            tallies.append(Tally(f"run, {stage}", "TERM, HUP, INT", len(SIGNALS), len(numbers), tuple(finds)))
    return tallies


def _one_signal(stage: str, number: signal.Signals, folder: Path) -> list[str]:
    prepare, has_begun = STAGES[stage]
    prepare(folder)
    process = start(("run", "tiny.json"), folder, folder / "said.txt")
    children: dict[int, str] = {}
    try:
        until = time.monotonic() + _BEGINS_WITHIN_S
        while not has_begun(process.pid, folder):
            if process.poll() is not None or time.monotonic() > until:
                return [f"it did not come so far: {(folder / 'said.txt').read_text()[-400:]}"]
            time.sleep(0.05)
        time.sleep(0.3)
        children = descendants(process.pid)
        process.send_signal(number)
        finds = []
        try:
            process.wait(_WITHIN_S)
        except subprocess.TimeoutExpired:
            finds.append(f"it lived on for more than {_WITHIN_S:g} s")
            process.kill()
            process.wait()
        if process.returncode != 128 + number and not finds:
            finds.append(f"expected exit code {128 + number}, found {process.returncode}")
        said = (folder / "said.txt").read_text()
        if "nterrupted" not in said and "topped" not in said and "nded" not in said:
            finds.append(f"expected a sentence that says why it ended, found {said[-200:]!r}")
        if "Traceback" in said:
            finds.append(f"it showed a traceback: {said[-400:]}")
        if left := still_alive(children, _WITHIN_S):
            finds.append(f"{len(left)} orphans lived on: {'; '.join(line[:80] for line in left.values())}")
        return finds
    finally:
        for child in (*still_alive(children, 0), *descendants(process.pid)):
            os.kill(child, signal.SIGKILL)
        if process.poll() is None:
            process.kill()
            process.wait()
