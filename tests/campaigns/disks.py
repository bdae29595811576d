"""Let the disk fail at every event of a command's files, or be full to every level, and run the command again.

Each error (ENOSPC, EIO, EROFS) is raised at one event and at all that follow, as a disk fails that stays full; and a
small tmpfs is filled to many levels, which takes root on Linux. Expected: exit code 2 or 3 with a sentence and no
traceback; whatever stood there is whole, the old file or the new one; and the command, run again on a disk that
works, ends as if nothing had been.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from campaign import (
    Tally,
    Warm,
    changed_foreign_files,
    differences,
    no_events,
    run_again,
    settled,
    spread,
    tell,
    undisturbed,
)
from forked import Ended, command, files_of
from injection import STRIKES, Events
from small_commands import COMMANDS

ERRORS = ("ENOSPC", "EIO", "EROFS")
_TMPFS_BYTES = 64 << 20
_PAGE = 4096
_SPARE_BYTES = 64 << 10
_LEVELS = 40


def disk_errors(warm: Warm) -> list[Tally]:
    """Raise each error at some or all events of every command."""
    chosen = ERRORS[: warm.budget or None]
    return [_errors(name, error, warm) for name in warm.starts for error in chosen]


def _errors(name: str, error: str, warm: Warm) -> Tally:
    start = warm.starts[name]
    events, files = undisturbed(name, start, warm.scratch)
    expected = settled(files)
    finds: list[str] = []
    chosen = [warm.at] if warm.at else spread(len(events), -(-warm.budget // len(ERRORS)))
    for number in chosen:
        folder = warm.scratch / name / "failed"
        shutil.copytree(start, folder)
        failed = command(COMMANDS[name], folder, partial(Events, at=number, strike=STRIKES[error], lasting=True))
        for find in [*complaints(name, failed, start, folder, expected), *run_again(name, folder, expected)]:
            tell(finds, f"errors --only {name} --at {number} ({events[number - 1]}) {error}: {find}")
        shutil.rmtree(folder.parent / "tmp", ignore_errors=True)
        shutil.rmtree(folder)
    shutil.rmtree(warm.scratch / name)
    return Tally(name, error, len(events), len(chosen), tuple(finds))


def disk_levels(warm: Warm) -> list[Tally]:
    """Let every command run on a disk that is full to some level."""
    return [_levels(name, warm) for name in warm.starts]


def _levels(name: str, warm: Warm) -> Tally:
    start, mount = warm.starts[name], warm.scratch / "tmpfs" / name
    mount.mkdir(parents=True)
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={_TMPFS_BYTES}", "tmpfs", mount]
    mounted = subprocess.run(mounting, capture_output=True, text=True, check=False)
    if mounted.returncode:
        print(f"{name}: skipped, a tmpfs cannot be mounted here ({mounted.stderr.strip()})")
        return Tally(name, "full disk", 0, 0, ())
    finds: list[str] = []
    try:
        _, files = undisturbed(name, start, warm.scratch)
        expected, needed = settled(files), _bytes(files) - _bytes(files_of(start)) + _SPARE_BYTES
        count = warm.budget or _LEVELS
        chosen = [warm.at] if warm.at is not None else list(range(count))
        for level in chosen:
            folder = mount / "full"
            shutil.copytree(start, folder)
            free = needed * level // max(count - 1, 1)
            with (mount / "ballast").open("wb") as ballast:
                ballast.write(bytes(max(shutil.disk_usage(mount).free - free, 0) // _PAGE * _PAGE))
            failed = command(COMMANDS[name], folder, no_events)
            (mount / "ballast").unlink()
            for find in [*complaints(name, failed, start, folder, expected), *run_again(name, folder, expected)]:
                tell(finds, f"levels --only {name} --at {level} --budget {count} ({free} bytes free): {find}")
            shutil.rmtree(mount / "tmp", ignore_errors=True)
            shutil.rmtree(folder)
    finally:
        subprocess.run(["umount", mount], check=False)
    return Tally(name, "full disk", count, len(chosen), tuple(finds))


def _bytes(files: Mapping[str, bytes]) -> int:
    """Return what files take on a disk."""
    return sum(-(-len(content) // _PAGE) * _PAGE for content in files.values())


def complaints(name: str, failed: Ended, start: Path, folder: Path, expected: Mapping[str, bytes]) -> list[str]:
    """Return what is wrong with how a command met the error."""
    finds = changed_foreign_files(name, folder)
    said = failed.text.strip()
    if failed.status == 0 and (wrong := differences(settled(files_of(folder)), expected)):
        finds.append(f"it ended with 0, and {wrong[0]}")
    if failed.status not in (0, 2, 3):
        finds.append(f"expected exit code 2 or 3, found {failed.status}: {said[-300:]}")
    if failed.status in (2, 3) and not said.endswith((".", "html", "}")):
        finds.append(f"expected a sentence, found {said[-300:]!r}")
    if "Traceback" in said or "unexpected" in said:
        finds.append(f"it did not expect the error: {said[-600:]}")
    old, now = settled(files_of(start)), settled(files_of(folder))
    for path, content in old.items():
        # The record says what has been done so far; an old night goes where this one ended.
        if path.endswith("run.json") or path not in {**expected, **now}:
            continue
        if path not in now:
            finds.append(f"{path} stood there and is gone")
        elif now[path] not in (content, expected.get(path)):
            finds.append(f"{path} is neither what it was nor what it becomes")
    return finds
