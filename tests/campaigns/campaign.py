"""What the campaigns share: commands that were run once, the events to strike at, and the comparison at the end."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from forked import NIGHT, Ended, command, files_of, warm_up
from injection import STRIKES, Events
from small_commands import COMMANDS, FOREIGN, FOREIGN_TEXT, PREPARATION, write_foreign_files, write_start

NIGHT_NAME = NIGHT.strftime("%Y-%m-%dT%H%M%SZ")
_SAID_OF_A_KILL = (b"was killed before its end", b"A line of the history could not be read")
_SAID_OF_THE_HOUR = (b'"ended_utc"', b"Measured until", b"<dt>Evidence</dt>", b"Evidence signed")
"""A night that is run again is run at another time, and the report says when."""


@dataclass(frozen=True)
class Tally:
    """What a campaign on one command came to."""

    command: str
    strike: str
    events: int
    tried: int
    finds: tuple[str, ...]


@dataclass(frozen=True)
class Warm:
    """A process that has imported everything, and what it strikes at.

    Attributes:
        starts: command → the folder that it starts in.
        scratch: an empty folder.
        budget: strikes for each command; 0 for every event.
        at: the number of one event, which is then the only one.
    """

    starts: Mapping[str, Path]
    scratch: Path
    budget: int
    at: int | None


def show(tallies: Sequence[Tally]) -> int:
    """Print a table and the finds; return 1 where there are any."""
    print("| command | strike | events | tried | finds |\n| --- | --- | ---: | ---: | ---: |")
    for tally in tallies:
        print(f"| `{tally.command}` | {tally.strike} | {tally.events} | {tally.tried} | {len(tally.finds)} |")
    for find in (find for tally in tallies for find in tally.finds):
        print(find)
    return int(any(tally.finds for tally in tallies))


def scratch_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder in memory, where the system has one: nothing waits for a disk there."""
    where = "/dev/shm" if Path("/dev/shm").is_dir() else None
    return tempfile.TemporaryDirectory(prefix="edgeproof-campaign-", dir=where)


def tell(finds: list[str], find: str) -> None:
    """Keep a find, and show it at once."""
    finds.append(find)
    print(find, file=sys.stderr, flush=True)


def prepare(scratch: Path, names: Sequence[str]) -> Mapping[str, Path]:
    """Return the folder that each command starts in; every command has been run once when this returns."""
    trials = {write_start(scratch / "trial" / name, name): [*prepared(name), COMMANDS[name]] for name in names}
    warm_up(trials)
    for name in names:
        start = write_start(scratch / "start" / name, name)
        for arguments in prepared(name):
            done(command(arguments, start, no_events), arguments)
        write_foreign_files(start, name)
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


@cache
def undisturbed(name: str, start: Path, scratch: Path) -> tuple[tuple[str, ...], Mapping[str, bytes]]:
    """Run a command that nobody disturbs; return its events, and the files that it leaves.

    Args:
        name: of the command.
        start: the folder that it starts in, which stays as it is.
        scratch: where it runs, in a copy that is gone afterwards.
    """
    whole = scratch / name / "whole"
    shutil.copytree(start, whole)
    events = done(command(COMMANDS[name], whole, no_events), COMMANDS[name]).events
    files = files_of(whole)
    shutil.rmtree(whole.parent)
    return events, files


def spread(events: int, budget: int) -> list[int]:
    """Return the numbers of the events to strike at: all, or as many as the budget has, evenly from first to last."""
    if not budget or budget >= events:
        return list(range(1, events + 1))
    return sorted({1 + round(place * (events - 1) / max(budget - 1, 1)) for place in range(budget)})


def settled(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return files without what tells of the kill, as it should: "reused" stages, attempts, times in a journal."""
    kept, told = {}, (*_SAID_OF_A_KILL, *_SAID_OF_THE_HOUR)
    for path, content in files.items():
        if path.endswith("/history.torn"):  # half a line that a kill left, kept for whoever wants to know
            continue
        if path.endswith((".search.jsonl", "/.lock", "history.jsonl")):
            kept[path] = b""
        elif path.endswith(("/run.json", "accepted.json")) and content.startswith(b"{"):
            kept[path] = json.dumps(_without_digests(json.loads(content.replace(b"reused", b"done")))).encode()
        elif path.endswith((".json", ".html", ".md", ".xml")):
            lines = content.replace(b"reused", b"done").splitlines()
            kept[path] = b"\n".join(line for line in lines if not any(said in line for said in told))
        else:
            kept[path] = content
    return kept


def _without_digests(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record without its own digest and those of files that tell of "reused" stages or hold times."""
    return {
        key: {
            name: found
            for name, found in value.items()
            if not name.startswith("report/") and not name.endswith((".search.jsonl", "validate/machine.json"))
        }
        if isinstance(value, dict)
        else value
        for key, value in record.items()
        if key != "sha256"
    }


def differences(found: Mapping[str, bytes], expected: Mapping[str, bytes]) -> list[str]:
    """Return one sentence for each file that is missing, left over or of other bytes."""
    return [
        *(f"{path} is missing" for path in sorted(expected.keys() - found.keys())),
        *(f"{path} was left over" for path in sorted(found.keys() - expected.keys())),
        *(f"{path} has other bytes" for path in sorted(expected) if path in found and found[path] != expected[path]),
    ]


def leftovers(files: Mapping[str, bytes]) -> list[str]:
    """Return a sentence where temporary files are left."""
    names = ((path, path.rpartition("/")[2]) for path in files)
    left = [path for path, name in names if ".edgeproof-partial" in name or ".deleted-" in path]
    return [f"left over: {', '.join(left)}"] if left else []


def changed_foreign_files(name: str, folder: Path) -> list[str]:
    """Return a sentence for each of somebody else's files that is not as it was."""
    paths = (folder / other for other in FOREIGN[name])
    return [
        f"{path.relative_to(folder)} is not as it was"
        for path in paths
        if not path.exists() or path.read_text() != FOREIGN_TEXT
    ]


def run_again(name: str, folder: Path, expected: Mapping[str, bytes]) -> list[str]:
    """Run a command that was disturbed on to its end, and return what is not as it should be."""
    history = folder / "nights" / "history.jsonl"
    ends = [line for line in history.read_bytes().splitlines() if b'"finished"' in line] if history.exists() else []
    again = command(COMMANDS[name], folder, no_events, NIGHT + timedelta(days=len(ends)))
    if again.status:
        return [f"the second run ended with {again.status}: {again.text[-300:]}"]
    found = settled(files_of(folder))
    finds = leftovers(found) + changed_foreign_files(name, folder)
    if ends:
        # Its end was on the record, good or bad, so that the next command was the next night.
        good = b'"error": null' in ends[0]
        night = NIGHT_NAME if good else f"{NIGHT + timedelta(days=1):%Y-%m-%dT%H%M%SZ}"
        found, expected = _of_one_night(found, night), _of_one_night(expected, NIGHT_NAME)
    return finds + differences(found, expected)


def _of_one_night(files: Mapping[str, bytes], night: str) -> dict[str, bytes]:
    """Return the files of one night, without the texts that tell of others, and without its name."""
    return {
        path.replace(night, ""): content.replace(night.encode(), b"")
        for path, content in files.items()
        if f"/{night}/" in path and "/comparison." not in path
    }
