"""Many configurations in one night: each under its own lock, the stalest first, and one that fails stops no other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.errors import EdgeproofError, ExitCode, UsageError
from foundation.files import JSON
from pipeline.configuration_file import read_configuration
from pipeline.night.nightly import NightlyResult, worst
from pipeline.night.nights import read_history

if TYPE_CHECKING:
    from pipeline.configuration import Configuration


@dataclass(frozen=True)
class Member:
    """One configuration of a fleet.

    Attributes:
        path: its file.
        configuration: what it says; None where it cannot be read.
        root: the folder of its nights.
        error: why it cannot be read, one sentence.
    """

    path: Path
    configuration: Configuration | None
    root: Path
    error: str | None = None

    @property
    def name(self) -> str:
        """The configuration's name; its file's where it cannot be read."""
        return self.configuration.name if self.configuration else self.path.name


@dataclass(frozen=True)
class MemberNight:
    """What a night came to for one member.

    Attributes:
        member: whose it was.
        exit_code: the night's.
        sentence: the night in one line.
        run: folder of its run; None where it did not end.
    """

    member: Member
    exit_code: ExitCode
    sentence: str
    run: Path | None = None

    def as_json(self) -> dict[str, JSON]:
        """Return everything but whose it was."""
        run = None if self.run is None else str(self.run)
        return {"exit_code": int(self.exit_code), "run": run, "said": self.sentence}

    @classmethod
    def of_json(cls, member: Member, values: Mapping[str, Any]) -> MemberNight:
        """Return the night of a member that `as_json` told of."""
        run = None if values["run"] is None else Path(values["run"])
        return cls(member, ExitCode(values["exit_code"]), values["said"], run)


def read_members(paths: Sequence[Path], root: Path) -> tuple[Member, ...]:
    """Return the members of a fleet, each with a folder of its own below `root`.

    Args:
        paths: configurations; one that is missing or wrong becomes a member with its error.
        root: the folder of the fleet.

    Raises:
        UsageError: two configurations have one name, so that their nights would lie in one folder.
    """
    members: list[Member] = []
    for path in paths:
        try:
            configuration = read_configuration(path)
        except UsageError as error:
            members.append(Member(path, None, root / path.stem, str(error)))
            continue
        twin = next((one for one in members if one.configuration and one.name == configuration.name), None)
        if twin is not None:
            raise UsageError(
                f"{path}: expected a name that no other configuration has, found {configuration.name!r} in "
                f"{twin.path} as well. Change `name` in one of them."
            )
        members.append(Member(path, configuration, root / configuration.name))
    return tuple(members)


def by_staleness(members: Sequence[Member]) -> tuple[Member, ...]:
    """Return members in the order of their last finished night, those that never finished one first.

    So a time budget that ends a night early takes other members every time.
    """
    return tuple(sorted(members, key=_last_finished))


def run_fleet(
    members: Sequence[Member],
    night_of: Callable[[Member], MemberNight],
    minutes: float | None,
    said: Callable[[str], None],
    clock_s: Callable[[], float] = time.monotonic,
    at_once: int = 1,
) -> tuple[MemberNight, ...]:
    """Have the night of each member done, the stalest begun first; go on after any that fails.

    Args:
        members: of the fleet.
        night_of: does one night.
        minutes: none is begun after so many; None: all are.
        said: hears of each as it begins and ends.
        clock_s: a clock that only runs forward.
        at_once: so many nights are under way at the same time.

    Returns:
        The nights in the order in which they were to begin.
    """
    started_s = clock_s()

    def in_its_turn(number: int, member: Member) -> MemberNight:
        if minutes is not None and clock_s() - started_s >= 60 * minutes:
            told = f"not begun: the {minutes:g} minutes of this night were over; it is the first one next time"
            night = MemberNight(member, ExitCode.INCOMPLETE, told)
        else:
            said(f"── {member.name} ({number} of {len(members)})")
            night = night_of(member)
        said(f"── {member.name}: exit code {int(night.exit_code)}; {night.sentence}")
        return night

    numbered = tuple(enumerate(by_staleness(members), start=1))
    if at_once == 1:
        return tuple(in_its_turn(*one) for one in numbered)
    threads = ThreadPoolExecutor(at_once)
    try:
        return tuple(threads.map(in_its_turn, *zip(*numbered, strict=True)))
    finally:  # also where a signal ends this: nobody waits for what is still under way
        threads.shutdown(wait=False, cancel_futures=True)


def fleet_exit_code(nights: Sequence[MemberNight]) -> ExitCode:
    """Return the code that says most against the evidence of any member."""
    return worst(night.exit_code for night in nights)


def one_night(member: Member, run_one: Callable[[Configuration, Path], NightlyResult]) -> MemberNight:
    """Do the night of one member; whatever it breaks on is what it came to.

    Args:
        member: of the fleet.
        run_one: does one night in a folder.
    """
    if member.configuration is None:
        return MemberNight(member, ExitCode.USAGE, member.error or "it could not be read")
    try:
        result = run_one(member.configuration, member.root)
    except EdgeproofError as error:
        return MemberNight(member, error.exit_code, str(error))
    except OSError as error:
        return MemberNight(member, ExitCode.INCOMPLETE, f"the operating system refused ({error})")
    except Exception as error:  # the other members' nights are not this one's fault
        told = f"an unexpected {type(error).__name__}: {error}. Run it alone with `edgeproof --debug nightly`."
        return MemberNight(member, ExitCode.INCOMPLETE, told)
    summary = result.comparison.summary if result.comparison else "no accepted run yet: the gates decided alone"
    return MemberNight(member, result.exit_code, summary, result.run.root)


def _last_finished(member: Member) -> str:
    """Return when the last night of a member finished, ISO 8601; "" where none did or its history cannot be read."""
    try:
        nights = read_history(member.root).nights
    except UsageError:
        return ""
    return max((night.finished_utc for night in nights if night.finished_utc is not None), default="")
