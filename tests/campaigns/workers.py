"""Kill workers and the run itself while workers compute ahead of it, on this host and on a Ray cluster of two.

Expected: the run, or the same command again where it was the run that was killed, ends as one without workers does,
and every file that holds no times has the same bytes. Strike N kills at the moment and hits the victim that N gives.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from random import Random

from campaign import Tally, tell
from small_commands import CONFIGURATION
from whole_process import command_line, descendants, environment, start

_WORKER = "pipeline.run.executors.worker"
_STRIKES = 10
_WITHIN_S = 300.0
_HOLDS_TIMES = ("report/", "validate/measurements.json", "validate/machine.json", "validate/placement.json")
_COMMAND = ("run", "tiny.json", "--quiet", "--run", "run")


def workers(scratch: Path, budget: int) -> list[Tally]:
    """Kill as often as the budget has it, on each executor that is there."""
    begun = scratch / "begun"
    begun.mkdir()
    variants = {name: CONFIGURATION["variants"][name] for name in ("fp16", "static-int8")}
    (begun / "tiny.json").write_text(json.dumps({**CONFIGURATION, "variants": variants}))
    _ended(("export", *_COMMAND[1:]), begun)
    plain = Path(shutil.copytree(begun, scratch / "plain"))
    _ended(_COMMAND, plain)
    expected = _digests(plain / "run")
    tallies = [_struck("--workers 2", ("--workers", "2"), begun, expected, budget, None)]
    if find_spec("ray") is not None:
        with ray_of_two(scratch) as (address, head):
            tallies.append(_struck("--ray", ("--ray", address), begun, expected, budget, head))
    else:
        print("workers --ray: not done, Ray is not installed", file=sys.stderr, flush=True)
    return tallies


@contextmanager
def ray_of_two(scratch: Path) -> Iterator[tuple[str, int]]:
    """Yield the address of a cluster of two CPUs on this host, and the process that holds it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"]
    ports = [f"--port={port}", "--min-worker-port=0", "--max-worker-port=0", "--include-dashboard=false"]
    quiet = ["--disable-usage-stats", f"--temp-dir={Path('/tmp') / f'ray-{os.getpid()}'}"]
    with (scratch / "ray.txt").open("wb") as said:
        head = subprocess.Popen([*ray, *ports, *quiet], env=environment(), stdout=said, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + 120
        while b"Ray runtime started" not in (scratch / "ray.txt").read_bytes():
            if head.poll() is not None or time.monotonic() > until:
                raise RuntimeError((scratch / "ray.txt").read_text()[-2000:])
            time.sleep(0.2)
        yield f"127.0.0.1:{port}", head.pid
    finally:
        head.terminate()
        head.wait()
        shutil.rmtree(Path("/tmp") / f"ray-{os.getpid()}", ignore_errors=True)


def _struck(
    name: str, where: tuple[str, ...], begun: Path, expected: dict[str, str], budget: int, head: int | None
) -> Tally:
    """Strike so often; without a budget ten times."""
    finds: list[str] = []
    folder = begun.parent / "struck"
    started = time.monotonic()
    shutil.copytree(begun, folder)
    _ended((*_COMMAND, *where), folder)
    whole_s = time.monotonic() - started
    if differing := _differing(expected, folder / "run"):
        tell(finds, f"workers {name}, undisturbed: other bytes in {differing}")
    tried = budget or _STRIKES
    for number in range(tried):
        shutil.rmtree(folder)
        shutil.copytree(begun, folder)
        for find in _one_strike(number, where, folder, whole_s, head):
            tell(finds, f"workers {name}, strike {number}: {find}")
        if differing := _differing(expected, folder / "run"):
            tell(finds, f"workers {name}, strike {number}: other bytes in {differing}")
        print(f"workers {name}: {number + 1} of {tried} strikes", file=sys.stderr, flush=True)
    shutil.rmtree(folder)
    return Tally(f"run {name}", "SIGKILL", tried, tried, tuple(finds))


def _one_strike(number: int, where: tuple[str, ...], folder: Path, whole_s: float, head: int | None) -> list[str]:
    """Kill a worker (even numbers) or the run (odd ones) once workers are there; run on to the end."""
    moment_s = Random(number).uniform(0.0, 0.5 * whole_s)
    process = start((*_COMMAND, *where), folder, folder / "said.txt")
    until = time.monotonic() + _WITHIN_S
    while not (found := _workers_below(head or process.pid)) and process.poll() is None:
        if time.monotonic() > until:
            return ["no worker began"]
        time.sleep(0.02)
    time.sleep(moment_s)
    found = _workers_below(head or process.pid)
    if number % 2 or not found:
        process.kill()
        process.wait()
        return _ran_on((*_COMMAND, *where), folder)
    os.kill(Random(number).choice(found), signal.SIGKILL)
    try:
        code = process.wait(_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return [f"it did not end: {(folder / 'said.txt').read_text()[-400:]}"]
    return [] if code == 0 else [f"expected exit code 0, found {code}: {(folder / 'said.txt').read_text()[-400:]}"]


def _ran_on(arguments: tuple[str, ...], folder: Path) -> list[str]:
    try:
        _ended(arguments, folder)
    except RuntimeError as error:
        return [str(error)]
    return []


def _ended(arguments: tuple[str, ...], folder: Path) -> None:
    process = start(arguments, folder, folder / "said.txt")
    if process.wait(_WITHIN_S) != 0:
        raise RuntimeError(f"{arguments} ended with {process.returncode}: {(folder / 'said.txt').read_text()[-400:]}")


def _workers_below(process: int) -> list[int]:
    return sorted(number for number in descendants(process) if _WORKER in command_line(number))


def _digests(root: Path) -> dict[str, str]:
    """Return path → sha256 of every file that holds no times, and what the record says of each stage."""
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    found = {path.relative_to(root).as_posix(): path for path in files}
    digests = {
        name: sha256(path.read_bytes()).hexdigest()
        for name, path in found.items()
        if not name.startswith((*_HOLDS_TIMES, ".lock")) and name != "run.json"
    }
    for stage in json.loads((root / "run.json").read_text())["stages"]:
        status = "done" if stage["status"] == "reused" else stage["status"]
        digests[f"run.json, {stage['kind']}/{stage['subject']}"] = json.dumps(
            [status, stage["key"], stage["outputs"]], sort_keys=True
        )
    return digests


def _differing(expected: dict[str, str], root: Path) -> str:
    found = _digests(root)
    return ", ".join(sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)))
