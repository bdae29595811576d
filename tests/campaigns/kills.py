"""Kill a command at every event of its files, run it again to its end, and compare with one that nobody disturbed.

The compared files are all of them, the record and the report too; "reused" counts as "done" there. The journal of
a search and the history of the nights tell of the kill, as they should, so they only have to be there.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from campaign import (
    Tally,
    Warm,
    changed_foreign_files,
    run_again,
    settled,
    spread,
    tell,
    undisturbed,
)
from forked import command
from injection import STRIKES, Events
from small_commands import COMMANDS


def kills(warm: Warm) -> list[Tally]:
    """Kill every command at some or all of its events."""
    return [_kills(name, warm) for name in warm.starts]


def _kills(name: str, warm: Warm) -> Tally:
    events, files = undisturbed(name, warm.starts[name], warm.scratch)
    expected = settled(files)
    finds: list[str] = []
    chosen = [warm.at] if warm.at else spread(len(events), warm.budget)
    for number in chosen:
        folder = warm.scratch / name / "killed"
        shutil.copytree(warm.starts[name], folder)
        for find in one_kill(name, folder, number, expected):
            tell(finds, f"kills --only {name} --at {number} ({events[number - 1]}): {find}")
        shutil.rmtree(folder)
        shutil.rmtree(folder.parent / "tmp", ignore_errors=True)
    shutil.rmtree(warm.scratch / name)
    return Tally(name, "SIGKILL", len(events), len(chosen), tuple(finds))


def one_kill(name: str, folder: Path, number: int, expected: Mapping[str, bytes]) -> list[str]:
    """Kill, run again, and return what is not as it should be."""
    killed = command(COMMANDS[name], folder, partial(Events, at=number, strike=STRIKES["SIGKILL"]))
    if killed.status != -9:
        return [f"expected a killed process, found status {killed.status}: {killed.text[-300:]}"]
    finds = [f"{killed.orphans} orphans lived on"] if killed.orphans else []
    finds += changed_foreign_files(name, folder)
    return finds + run_again(name, folder, expected)
