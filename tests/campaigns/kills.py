"""Kill a command at every event of its files, run it again to its end, and compare with one that nobody disturbed.

    python tests/campaigns/kills.py [--budget N] [--only COMMAND] [--at N]

A find is named by its command and the number of its event: `--only tuned --at 17` does that one again.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from forked import NIGHT, Ended, command, files_of, warm_up
from injection import STRIKES, Events
from small_commands import COMMANDS, FOREIGN, PREPARATION, write_start

NIGHT_NAME = NIGHT.strftime("%Y-%m-%dT%H%M%SZ")
SAID_OF_A_KILL = (b"was killed before its end",)


@dataclass(frozen=True)
class Tally:
    """What a campaign on one command came to."""

    command: str
    events: int
    tried: int
    finds: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the campaign; return 1 where it found something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=int, default=0, help="kills in all, spread evenly; 0: every event")
    parser.add_argument("--only", choices=tuple(COMMANDS))
    parser.add_argument("--at", type=int, help="this event alone")
    options = parser.parse_args(arguments)
    names = (options.only,) if options.only else tuple(COMMANDS)
    where = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a file system in memory: nothing waits for a disk
    with tempfile.TemporaryDirectory(prefix="edgeproof-campaign-", dir=where) as scratch:
        starts = prepare(Path(scratch), names)
        tallies = [
            kills(name, starts[name], Path(scratch), options.budget // len(names), options.at) for name in names
        ]
    print("| command | events | kills | finds |\n| --- | ---: | ---: | ---: |")
    for tally in tallies:
        print(f"| `{tally.command}` | {tally.events} | {tally.tried} | {len(tally.finds)} |")
    for find in (find for tally in tallies for find in tally.finds):
        print(find)
    return int(any(tally.finds for tally in tallies))


def prepare(scratch: Path, names: Sequence[str]) -> Mapping[str, Path]:
    """Return the folder that each command starts in; every command has been run once when this returns."""
    trials = {write_start(scratch / "trial" / name, name): [*prepared(name), COMMANDS[name]] for name in names}
    warm_up(trials)
    for name in names:
        start = write_start(scratch / "start" / name, name)
        for arguments in prepared(name):
            done(command(arguments, start, no_events), arguments)
    return {name: scratch / "start" / name for name in names}


def prepared(name: str) -> list[tuple[str, ...]]:
    """Return what is run before a command."""
    return [PREPARATION[name]] if name in PREPARATION else []


def no_events(folder: Path) -> Events:
    """Watch, and never strike."""
    return Events(folder, None, STRIKES["SIGKILL"])


def done(ended: Ended, arguments: tuple[str, ...]) -> Ended:
    """Return how a command ended; stop the campaign where one that nobody disturbed did not end well."""
    if ended.status:
        raise SystemExit(f"edgeproof {' '.join(arguments)}: ended with {ended.status}\n{ended.text}")
    return ended


def kills(name: str, start: Path, scratch: Path, budget: int, at: int | None) -> Tally:
    """Kill one command at some or all of its events."""
    whole = scratch / name / "whole"
    shutil.copytree(start, whole)
    events = done(command(COMMANDS[name], whole, no_events), COMMANDS[name]).events
    expected = settled(files_of(whole))
    finds = []
    chosen = [at] if at else spread(len(events), budget)
    for number in chosen:
        folder = scratch / name / "killed"
        shutil.copytree(start, folder)
        for find in one_kill(name, folder, number, expected):
            finds.append(f"--only {name} --at {number} ({events[number - 1]}): {find}")
            print(finds[-1], file=sys.stderr, flush=True)
        shutil.rmtree(folder)
        shutil.rmtree(folder.parent / "tmp", ignore_errors=True)
    return Tally(name, len(events), len(chosen), tuple(finds))


def spread(events: int, budget: int) -> list[int]:
    """Return the numbers of the events to strike at: all, or as many as the budget has, evenly from first to last."""
    if not budget or budget >= events:
        return list(range(1, events + 1))
    return sorted({1 + round(place * (events - 1) / max(budget - 1, 1)) for place in range(budget)})


def one_kill(name: str, folder: Path, number: int, expected: Mapping[str, bytes]) -> list[str]:
    """Kill, run again, and return what is not as it should be."""
    strike = lambda root: Events(root, number, STRIKES["SIGKILL"])  # noqa: E731
    killed = command(COMMANDS[name], folder, strike)
    if killed.status != -9:
        return [f"expected a killed process, found status {killed.status}: {killed.text[-300:]}"]
    finds = [f"{killed.orphans} orphans lived on"] if killed.orphans else []
    for other in FOREIGN[name]:
        if (folder / other).read_text() != "somebody else's":
            finds.append(f"{other} is not as it was")
    history = folder / "nights/history.jsonl"
    again_is_another_night = history.exists() and b'"finished"' in history.read_bytes()
    if again_is_another_night:
        # Killed after its end was recorded: the next command is the next night, and this one is as it should be.
        again = command(COMMANDS[name], folder, no_events, NIGHT + timedelta(days=1))
        expected = {path: content for path, content in expected.items() if NIGHT_NAME in path}
    else:
        again = command(COMMANDS[name], folder, no_events)
    if again.status:
        return [*finds, f"the second run ended with {again.status}: {again.text[-300:]}"]
    found = settled(files_of(folder))
    if leftovers := [
        path for path in found if (path.rpartition("/")[2].startswith(".") and ".tmp" in path) or ".deleted-" in path
    ]:
        finds.append(f"left over: {', '.join(leftovers)}")
    if again_is_another_night:
        found = {path: content for path, content in found.items() if NIGHT_NAME in path}
    return finds + differences(found, expected)


def settled(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return files without what tells of the kill, as it should: "reused" stages, attempts, times in a journal."""
    kept = {}
    for path, content in files.items():
        if path.endswith((".search.jsonl", "/.lock", "history.jsonl")):
            kept[path] = b""
        elif path.endswith((".json", ".html", ".md", ".xml")):
            lines = content.replace(b"reused", b"done").splitlines()
            kept[path] = b"\n".join(line for line in lines if not any(said in line for said in SAID_OF_A_KILL))
        else:
            kept[path] = content
    return kept


def differences(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> list[str]:
    """Return one sentence for each file that is missing, left over or of other bytes."""
    return [
        *(f"{path} is missing" for path in sorted(expected.keys() - found.keys())),
        *(f"{path} was left over" for path in sorted(found.keys() - expected.keys())),
        *(f"{path} has other bytes" for path in sorted(expected) if path in found and found[path] != expected[path]),
    ]


if __name__ == "__main__":
    sys.exit(main())
