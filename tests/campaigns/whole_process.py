"""Run `edgeproof` as its users do, in a process of its own, and find its descendants."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "pipeline")


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a command, with some of it changed."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **changes}


def start(
    arguments: tuple[str, ...], folder: Path, said: Path, variables: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    """Start a command in a folder; what it says goes into a file."""
    with said.open("wb") as stream:
        return subprocess.Popen(
            [*COMMAND, *arguments],
            cwd=folder,
            env=environment(**(variables or {})),
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )


def descendants(process: int) -> dict[int, str]:
    """Return the processes below one, number → command line."""
    found: dict[int, str] = {}
    waiting = [process]
    while waiting:
        parent = waiting.pop()
        try:
            texts = [(task / "children").read_text() for task in Path(f"/proc/{parent}/task").iterdir()]
        except OSError:
            continue
        for number in (int(number) for text in texts for number in text.split()):
            found[number] = command_line(number)
            waiting.append(number)
    return found


def command_line(process: int) -> str:
    """Return a process's command line; empty where it is gone, or a zombie."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def still_alive(processes: Mapping[int, str], seconds: float) -> dict[int, str]:
    """Wait until processes are gone, so many seconds at most, and return those that are not."""
    until = time.monotonic() + seconds
    while True:
        left = {number: line for number, line in processes.items() if line and command_line(number) == line}
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.05)


def processor_seconds(process: int) -> float:
    """Return how long a process has computed; 0 where it is gone."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
