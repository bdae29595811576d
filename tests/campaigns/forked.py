"""Run a command of `edgeproof` in a fork of this process, which has imported everything: a second instead of ten.

What no two runs share is fixed in the fork, so that what is left can be compared byte for byte: the clock, the
seconds that a stage took, and the measured latency. Everything else is the shipped code.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from injection import Events, watch

from foundation.child import _DISK_REFUSED, BrokenChildError
from foundation.errors import DiskError, UsageError

_SUBREAPER = 36
"""`PR_SET_CHILD_SUBREAPER`: whose parent dies becomes our child, so that no orphan gets away uncounted."""
ORPHANS_MAY_LIVE_S = 2.0
NIGHT = datetime(2026, 1, 1, 2, tzinfo=UTC)


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status as `subprocess` gives it, what it said, its events, and orphans it left."""

    status: int
    text: str
    events: tuple[str, ...]
    orphans: int


def warm_up(folders: Mapping[Path, Sequence[tuple[str, ...]]]) -> None:
    """Do commands in this process, so that the forks find everything imported and every cache filled.

    Args:
        folders: where, and what to do there one after the other.
    """
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # it has a thread of its own
    import torch
    import tqdm

    from pipeline import cli

    _remember_exports()
    _remember_versions()
    cli.end_on_signals = lambda say: None  # it has a thread too; what signals do is a campaign of its own
    torch.set_num_threads(1)
    tqdm.tqdm.monitor_interval = 0
    for folder, commands in folders.items():
        os.chdir(folder)
        for arguments in commands:
            sys.argv = ["edgeproof", *arguments]
            with contextlib.redirect_stdout(io.StringIO()) as said:
                try:
                    cli.main()
                except SystemExit as end:
                    if end.code:
                        raise SystemExit(f"edgeproof {' '.join(arguments)}: {end.code}\n{said.getvalue()}") from end
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        raise SystemExit(f"expected one thread, found {threads}: a fork would leave the others' locks taken")


def _remember_exports() -> None:
    """Let PyTorch export a network once: it takes two thirds of a run, and touches no file."""
    import torch

    export, exported = torch.onnx.export, dict[str, bytes]()

    def remembering(network: Any, *arguments: Any, **options: Any) -> Any:
        content = hashlib.sha256(str(network).encode())
        for name, tensor in network.state_dict().items():
            content.update(name.encode() + tensor.numpy().tobytes())
        key = content.hexdigest()
        if key not in exported:
            exported[key] = export(network, *arguments, **options).model_proto.SerializeToString()
        return SimpleNamespace(model_proto=onnx.ModelProto.FromString(exported[key]))

    import onnx

    torch.onnx.export = remembering  # type: ignore[assignment]


def _remember_versions() -> None:
    """Ask for the versions of what is installed, and how busy the machine is, once for all forks."""
    import foundation.versions
    import pipeline.machine.environment as environment
    import stages.validate.machine_state as machine_state

    foundation.versions.installed_version = cache(foundation.versions.installed_version)
    environment.installed_version = foundation.versions.installed_version  # type: ignore[attr-defined]
    environment.worker_versions = cache(environment.worker_versions)  # type: ignore[attr-defined]
    machine_state.machine_state = cache(machine_state.machine_state)  # type: ignore[assignment]


def command(
    arguments: tuple[str, ...], folder: Path, events: Callable[[Path], Events], now: datetime = NIGHT
) -> Ended:
    """Run `edgeproof ARGUMENTS` in a folder, and wait until it and its children have ended.

    Args:
        arguments: of the command.
        folder: the working directory.
        events: makes what watches, of the folder.
        now: what the clock says.
    """
    with tempfile.TemporaryFile("w+") as said, tempfile.TemporaryFile("w+") as seen:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            _be(arguments, folder, events(folder.resolve()), now, said.fileno(), seen.fileno())
        _, raw = os.waitpid(child, 0)
        orphans = _living_orphans()
        said.seek(0)
        seen.seek(0)
        return Ended(os.waitstatus_to_exitcode(raw), said.read(), tuple(seen.read().splitlines()), orphans)


def _be(arguments: tuple[str, ...], folder: Path, events: Events, now: datetime, said: int, seen: int) -> None:
    code = 99
    try:
        for stream in (1, 2):
            os.dup2(said, stream)
        os.chdir(folder)
        tempfile.tempdir = str(folder.parent / "tmp")
        Path(tempfile.tempdir).mkdir(exist_ok=True)
        _fix_what_no_run_repeats(now)
        from pipeline import cli

        plain_write = os.write
        watch(events)
        sys.argv = ["edgeproof", *arguments]
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        events.at = None
        plain_write(seen, "\n".join(events.seen).encode())
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _fix_what_no_run_repeats(now: datetime) -> None:
    import foundation.lock
    import onnx_files.reading
    import pipeline.night.nightly
    import pipeline.run.ledger
    import pipeline.run.measurements
    import stages.search.score
    import stages.validate.latency
    import stages.validate.placement
    from foundation.note_parts import Estimate
    from foundation.placement import Placement

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return now.astimezone(tz)

    pipeline.night.nightly.datetime = Clock  # type: ignore[misc]
    pipeline.run.measurements.datetime = Clock  # type: ignore[misc]
    foundation.lock.datetime = Clock  # type: ignore[misc]
    pipeline.run.ledger.time = SimpleNamespace(perf_counter=lambda: 0.0)  # type: ignore[assignment]
    stages.validate.latency.measure_latency = lambda *anything: []
    stages.validate.placement.measure_placement = lambda variant, path, provider, *anything: Placement(
        variant, provider, (), 0, ()
    )

    onnx_files.reading.run_guarded = _guarded_by_a_fork

    def speedup(fp32: Path, path: Path, *anything: object) -> Estimate:
        value = fp32.stat().st_size / path.stat().st_size
        return Estimate(value=value, ci95=(value - 0.01, value + 0.01), n=5)

    stages.search.score.speedup = speedup  # type: ignore[assignment]


def _guarded_by_a_fork(function: str, arguments: tuple[str, ...], limits: object) -> None:
    """Do as `run_guarded` does, but for the limits, without half a second to start Python."""
    from foundation.child import _in_child

    with os.fdopen(os.memfd_create("said"), "w+") as said:  # in memory: the temporary folder may be full
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.dup2(said.fileno(), 1)
                sys.stdout = os.fdopen(1, "w")
                import resource

                resource.setrlimit = lambda *limits: None  # those of this process stay, which holds all of PyTorch
                code = _in_child(function, 0, list(arguments))
                sys.stdout.flush()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        said.seek(0)
        text = said.read().strip()
    code = os.waitstatus_to_exitcode(status)
    if code == _DISK_REFUSED:
        raise DiskError(text)
    if code == UsageError.exit_code:
        raise UsageError(text)
    if code:
        raise BrokenChildError(code)


def _living_orphans() -> int:
    """Wait for the children that a dead command left, two seconds at most; return how many outlived that."""
    until = time.monotonic() + ORPHANS_MAY_LIVE_S
    while time.monotonic() < until:
        try:
            done, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 0
        if not done:
            time.sleep(0.02)
    left = _children()
    for process in left:
        os.kill(process, 9)
        os.waitpid(process, 0)
    return len(left)


def _children() -> list[int]:
    found = []
    for task in Path("/proc/self/task").iterdir():
        found += [int(number) for number in (task / "children").read_text().split()]
    return found


def files_of(folder: Path) -> Mapping[str, bytes]:
    """Return the content of every file below a folder, by its path there."""
    paths = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(paths)}
