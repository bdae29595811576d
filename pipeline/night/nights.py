"""The history of a nightly: `history.jsonl`, two lines per night, readable after a kill at any point.

A night writes a `started` line before its first stage and a `finished` line after its comparison. A night without a
`finished` line was killed. Each line is appended in one write and synced before anything else happens. A last line
that a kill or a full disk tore is reported by the next read and moved to `history.torn` by the next append.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

from foundation.errors import UsageError
from foundation.files import JSON

HISTORY_NAME = "history.jsonl"
TORN_NAME = "history.torn"

T = TypeVar("T", int, str)


@dataclass(frozen=True)
class Night:
    """One night of the history.

    Attributes:
        run: name of the run folder.
        configuration_sha256: digest of the configuration that the night ran.
        started_utc: when its first attempt began, ISO 8601.
        attempts: how many times it began; more than 1 where a killed night was resumed.
        finished_utc: when it ended; None where it was killed (or is still running).
        exit_code: the night's exit code, the worst of the gates' and the comparison's; None likewise.
        comparison: what the comparison with the accepted run said, in one line; None likewise.
        headline: the run's headline measurements, "METRIC/VARIANT" to value.
        intervals: their 95 % intervals, where they have one; empty in nights of before they were kept.
        suspects: what can have made it red, of the kinds of `pipeline.judge.changed_inputs`; likewise.
        error: the error that ended the run, None where there was none.
    """

    run: str
    configuration_sha256: str
    started_utc: str
    attempts: int = 1
    finished_utc: str | None = None
    exit_code: int | None = None
    comparison: str | None = None
    headline: Mapping[str, float | None] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    suspects: tuple[str, ...] = ()
    error: str | None = None

    @property
    def status(self) -> Literal["finished", "killed"]:
        """Whether the night came to its end; read it while holding the folder's lock."""
        return "killed" if self.finished_utc is None else "finished"


@dataclass(frozen=True)
class History:
    """All nights of a folder, oldest first, and the lines that could not be read, each as "line N: what it holds"."""

    nights: tuple[Night, ...]
    unreadable: tuple[str, ...]


def read_history(folder: Path) -> History:
    """Return the history of a nightly's folder; empty where nothing was written yet.

    Args:
        folder: the folder that holds `history.jsonl`.

    Raises:
        UsageError: the file is there and cannot be read.
    """
    path = folder / HISTORY_NAME
    nights: dict[str, Night] = {}
    unreadable = []
    for number, line in enumerate(_read(path).splitlines(), start=1):
        try:
            night = _with_event(nights, json.loads(line))
            nights[night.run] = night
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            unreadable.append(f"{path.name} line {number}: {line[:60].decode(errors='replace')!r}")
    return History(tuple(nights.values()), tuple(unreadable))


def record_start(folder: Path, run: str, configuration_sha256: str, time_utc: str) -> Night:
    """Append that a night begins, or begins again after a kill. Call it while holding the folder's lock.

    Args:
        folder: the folder that holds `history.jsonl`.
        run: name of the run folder.
        configuration_sha256: digest of the configuration.
        time_utc: ISO 8601.

    Returns:
        The night as it begins.

    Raises:
        UsageError: the file system refused the write.
    """
    _append(
        folder / HISTORY_NAME,
        {"event": "started", "run": run, "configuration_sha256": configuration_sha256, "time_utc": time_utc},
    )
    return Night(run, configuration_sha256, time_utc)


def record_finish(folder: Path, night: Night) -> None:
    """Append how a night ended. Call it while holding the folder's lock.

    Args:
        folder: the folder that holds `history.jsonl`.
        night: the night that `record_start` began, with its end filled in.

    Raises:
        UsageError: the file system refused the write.
    """
    _append(
        folder / HISTORY_NAME,
        {
            "event": "finished",
            "run": night.run,
            "time_utc": night.finished_utc,
            "exit_code": night.exit_code,
            "comparison": night.comparison,
            "headline": dict(night.headline),
            "intervals": {name: list(interval) for name, interval in night.intervals.items()},
            "suspects": list(night.suspects),
            "error": night.error,
        },
    )


def _with_event(nights: Mapping[str, Night], event: Mapping[str, JSON]) -> Night:
    """Return the event's night as it stands after the event."""
    run = str(event["run"])
    if event["event"] == "started":
        before = nights.get(run)
        return Night(
            run,
            str(event["configuration_sha256"]),
            started_utc=before.started_utc if before else str(event["time_utc"]),
            attempts=before.attempts + 1 if before else 1,
        )
    if event["event"] != "finished":
        raise ValueError(f"unknown event {event['event']!r}")
    before = nights[run]
    return Night(
        run,
        before.configuration_sha256,
        before.started_utc,
        before.attempts,
        finished_utc=str(event["time_utc"]),
        exit_code=_typed(event["exit_code"], int),
        comparison=None if event["comparison"] is None else _typed(event["comparison"], str),
        headline={name: None if value is None else float(value) for name, value in event["headline"].items()},
        intervals={str(name): (float(low), float(high)) for name, (low, high) in event.get("intervals", {}).items()},
        suspects=tuple(_typed(kind, str) for kind in event.get("suspects", ())),
        error=None if event["error"] is None else _typed(event["error"], str),
    )


def _typed(value: JSON, kind: type[T]) -> T:
    if type(value) is not kind:
        raise TypeError(f"{type(value).__name__} in place of {kind.__name__}")
    return value


def _append(path: Path, event: Mapping[str, JSON]) -> None:
    line = json.dumps(event, sort_keys=True, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        created = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            _mend_end(path, descriptor)
            written = os.write(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if created:
            _sync_folder(path.parent)
    except OSError as error:
        raise UsageError(
            f"{path}: could not be written ({error.strerror}). Free some space and run again."
        ) from error
    if written != len(line):  # the rest did not fit; the next append sets the torn line aside
        raise UsageError(f"{path}: the disk is full. Free some space and run again.")


def _mend_end(path: Path, descriptor: int) -> None:
    """Make the file end with a newline: move a torn last line to `history.torn`, in an order that loses nothing."""
    content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    kept = content.rfind(b"\n") + 1
    tail = content[kept:]
    if not tail:
        return
    if _is_json(tail):  # only the newline is missing
        os.write(descriptor, b"\n")
        return
    torn = os.open(path.with_name(TORN_NAME), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(torn, tail + b"\n")
        os.fsync(torn)
    finally:
        os.close(torn)
    os.ftruncate(descriptor, kept)


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise UsageError(f"{path}: could not be read ({error.strerror}). Make it readable and run again.") from error
