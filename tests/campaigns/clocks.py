"""Let the clock jump between nights, and see which nights are kept.

Each series of nights is a list of clocks. Whatever they say, tonight's folder is there afterwards, so is the accepted
one, as many nights are kept as are wanted, and no two nights have one name.
"""

from __future__ import annotations

import json
import random
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from campaign import Tally, Warm, done, no_events, tell
from forked import NIGHT, command
from small_commands import COMMANDS

_DAY = timedelta(days=1)
SERIES: dict[str, tuple[datetime, ...]] = {
    "set back by a year": (NIGHT, NIGHT + _DAY, NIGHT - 365 * _DAY, NIGHT - 364 * _DAY),
    "set back before all others": (NIGHT, datetime(1970, 1, 1, tzinfo=UTC), datetime(1970, 1, 2, tzinfo=UTC)),
    "set to the same second": (NIGHT, NIGHT, NIGHT),
    "set forth and back": (NIGHT, datetime(2199, 12, 31, tzinfo=UTC), NIGHT + _DAY, NIGHT + 2 * _DAY),
    "an hour twice": (NIGHT, NIGHT + _DAY, NIGHT + _DAY - timedelta(hours=1), NIGHT + _DAY),
}
_DRAWN = 3
_ACCEPTED_AFTER = 1
_KEPT = 2


def clocks(warm: Warm) -> list[Tally]:
    """Run each series of nights, and some whose clocks are drawn with a fixed seed."""
    if "nightly" not in warm.starts:
        return []
    series = dict(SERIES)
    for seed in range(_DRAWN):
        draw = random.Random(seed)
        series[f"drawn with seed {seed}"] = tuple(NIGHT + draw.randint(-900, 900) * _DAY for _ in range(5))
    chosen = list(series)[: warm.budget or None]
    finds: list[str] = []
    nights = 0
    for name in chosen:
        folder = warm.scratch / "clocks"
        shutil.copytree(warm.starts["nightly"], folder)
        nights += len(series[name])
        for find in _nights(folder, series[name]):
            tell(finds, f"clocks, {name}: {find}")
        shutil.rmtree(folder)
    return [Tally("nightly", "clock", nights, len(chosen), tuple(finds))]


def _nights(folder: Path, series: tuple[datetime, ...]) -> list[str]:
    """Run one night for each clock, accept the first, and return what is not as it should be."""
    finds: list[str] = []
    root, given, accepted = folder / "nights", list[str](), ""
    for number, now in enumerate(series, start=1):
        before = {path.name for path in root.glob("*Z")}
        ended = done(command((*COMMANDS["nightly"], "--json"), folder, no_events, now), ("nightly",))
        tonight = Path(json.loads(ended.text[ended.text.index("{") :])["run"]).name
        if tonight in given or tonight in before:
            finds.append(f"night {number} took the name {tonight} again")
        given.append(tonight)
        kept = {path.name for path in root.glob("*Z")}
        if not (root / tonight / "run.json").exists():
            finds.append(f"night {number} deleted its own folder {tonight}")
        if accepted and not (root / accepted / "run.json").exists():
            finds.append(f"night {number} deleted the accepted folder {accepted}")
        newest = set(given[-_KEPT:]) | ({accepted} if accepted else set())
        if len(given) >= _KEPT and kept != newest:
            finds.append(f"night {number}: expected {sorted(newest)}, found {sorted(kept)}")
        if number == _ACCEPTED_AFTER:
            done(command(("accept", f"nights/{tonight}"), folder, no_events, now), ("accept",))
            accepted = tonight
    return finds
