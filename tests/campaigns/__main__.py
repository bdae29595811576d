"""Disturb `edgeproof` in every way that a machine does, and see whether it ends as if nothing had been.

    python tests/campaigns CAMPAIGN ... [--budget N] [--only COMMAND] [--at N]

Nothing is drawn by chance: a find is named by its campaign, its command and a number, and those do it again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from browser import browser
from campaign import Tally, Warm, prepare, scratch_folder, show
from clocks import clocks
from disks import disk_errors, disk_levels
from kills import kills
from network import network
from overviews import overviews
from places import places
from signals import signals
from small_commands import COMMANDS
from workers import workers

WARM: Mapping[str, Callable[[Warm], list[Tally]]] = {
    "kills": kills,
    "errors": disk_errors,
    "levels": disk_levels,
    "clocks": clocks,
}
"""Campaigns on forks of a process that has imported everything."""

PLAIN: Mapping[str, Callable[[Path, int], list[Tally]]] = {
    "places": places,
    "network": network,
    "signals": signals,
    "browser": browser,
    "workers": workers,
    "overviews": overviews,
}
"""Campaigns on whole processes."""


def main() -> int:
    """Do the campaigns; return 1 where they found something."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaigns", nargs="*", choices=[*WARM, *PLAIN, []], help="default: all")
    parser.add_argument("--budget", type=int, default=0, help="strikes for each command, spread evenly; 0: all")
    parser.add_argument("--only", choices=tuple(COMMANDS), help="this command alone")
    parser.add_argument("--at", type=int, help="this event or level alone")
    options = parser.parse_args()
    names = (options.only,) if options.only else tuple(COMMANDS)
    chosen = options.campaigns or [*WARM, *PLAIN]
    tallies: list[Tally] = []
    with scratch_folder() as scratch:
        if warm := [WARM[name] for name in chosen if name in WARM]:
            starts = prepare(Path(scratch) / "warm", names)
            for campaign in warm:
                tallies += campaign(Warm(starts, Path(scratch), options.budget, options.at))
        for campaign in (PLAIN[name] for name in chosen if name in PLAIN):
            tallies += campaign(Path(scratch), options.budget)
    return show(tallies)


if __name__ == "__main__":
    sys.exit(main())
