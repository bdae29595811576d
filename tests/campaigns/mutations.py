"""The mutation campaign: damaged files by the thousand, and each must be a typed value or one sentence.

    python -m tests.campaigns.mutations --budget 10000 --target dicom --seed 1

A mutant is known by its target, seed and number; `--index` makes that one again and shows what becomes of it. Mutants
are read in a worker process with a limit on memory: a crash or a hang is counted, and the campaign goes on.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import re
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from .mutators import mutant

HANG_S = 10.0
"""Of processor time for one mutant, or twenty times as long on the clock."""
WORKER_BYTES = 12 << 30
"""Of address space: what a parser takes beyond this is a MemoryError, and shows in the peak long before."""
LARGE_KB = 1_500_000
"""A worker that has grown beyond is replaced, so that the next peak is seen too."""
ROOT = Path(__file__).resolve().parents[2]
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass
class Outcome:
    """What became of a target's mutants.

    Attributes:
        kinds: "accepted", "sentence", "guard" and "over time" (in the pipeline the child process takes it upon
            itself, and a sentence tells of it), "unexpected", "hang", "crash" → how many.
        peak_mb: most memory that the worker took, and its number; above what it had before the first mutant.
        finds: kind, number and text of what should not be.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    peak_mb: float = 0.0
    peak_number: int = -1
    finds: list[tuple[str, int, str]] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not self.finds


def content_of(name: str, seed: int, number: int, seeds: Sequence[bytes]) -> bytes:
    """Return a mutant by its name."""
    from .mutations_targets import TARGETS, WHOLE

    return mutant(seeds, (TARGETS | WHOLE)[name].mutators, random.Random(f"{name}/{seed}/{number}"))


class Place:
    """A folder in which a target's mutants are read, one after the other."""

    def __init__(self, name: str, folder: Path) -> None:
        from .mutations_targets import TARGETS, WHOLE

        self.name, self.target = name, (TARGETS | WHOLE)[name]
        self.seeds = self.target.seeds(folder)
        self.path = folder / self.target.file
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")

    def read(self, content: bytes, number: int = 0) -> tuple[str, str]:
        """Read bytes as the target does, and return the kind of what came of it and a text."""
        from foundation.errors import EdgeproofError

        self.path.unlink(missing_ok=True)  # rather than cut short what is still mapped
        self.path.write_bytes(content)
        os.utime(self.path, ns=(number * 10**9, number * 10**9))  # caches go by it
        try:
            with warnings.catch_warnings(action="ignore"):
                self.target.read(self.path)
            return "accepted", ""
        except EdgeproofError as error:
            return _judged(str(error))
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)
            ours = [
                frame
                for frame in where
                if ROOT.as_posix() in frame.filename
                and "/tests/" not in frame.filename
                and "/.venv/" not in frame.filename
            ]
            at = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "?"
            kind = "guard" if self.target.guarded else "unexpected"
            return kind, f"{type(error).__name__} at {at}: {str(error)[:200]}"


def _judged(text: str) -> tuple[str, str]:
    if not re.search("expected|mistake|`|must|names|listed twice|cannot name", text):
        return "unexpected", f"no sentence: {text[:200]}"
    if _UNPRINTABLE.search(text):
        return "unexpected", f"commands the terminal: {text[:200]!a}"
    if "Traceback" in text or len(text) > 4000:
        return "unexpected", f"more than a sentence ({len(text)} characters): {text[:200]!a}"
    return "sentence", text


def run(name: str, seed: int, start: int, stop: int, seconds: float = math.inf) -> Outcome:
    """Read a target's mutants from one number up to another, or until the time is over."""
    outcome, at, deadline = Outcome(), start, time.monotonic() + seconds
    while at < stop and time.monotonic() < deadline:
        at = _with_worker(name, seed, at, stop, outcome, deadline)
    return outcome


def _with_worker(name: str, seed: int, start: int, stop: int, outcome: Outcome, deadline: float) -> int:
    """Let one worker go on until it ends, breaks or has grown; return the number to go on with."""
    from .mutations_targets import TARGETS, WHOLE

    guarded = (TARGETS | WHOLE)[name].guarded
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=_work, args=(name, seed, start, stop, theirs), daemon=name not in WHOLE)
    worker.start()
    theirs.close()
    number, before = start, 0
    try:
        if not ours.poll(1200):
            raise RuntimeError(f"{name}: the worker does not begin")
        before = _begun(name, ours)
        while number < stop and time.monotonic() < deadline:
            if not _answers(worker.pid, ours):
                _found(outcome, "over time" if guarded else "hang", number, f"more than {HANG_S:.0f} s")
                return number + 1
            kind, text, peak_kb = ours.recv()
            _found(outcome, kind, number, text)
            if (peak_kb - before) / 1024 > outcome.peak_mb:
                outcome.peak_mb, outcome.peak_number = (peak_kb - before) / 1024, number
            number += 1
            if peak_kb - before > LARGE_KB:
                return number
    except EOFError:
        worker.join(10)
        _found(outcome, "guard" if guarded else "crash", number, f"the process ended with {worker.exitcode}")
        return number + 1
    finally:
        worker.kill()
        worker.join()
        ours.close()
    return number


def _answers(pid: int, connection: Any) -> bool:
    """Wait for the worker's answer, no longer than `HANG_S` of its own time: others may hold the processors."""
    started, waited = _cpu_seconds(pid), 0
    while not connection.poll(1):
        waited += 1
        if _cpu_seconds(pid) - started > HANG_S or waited > 20 * HANG_S:
            return False
    return True


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended; the connection tells
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _begun(name: str, connection: Any) -> int:
    """Return the worker's memory before the first mutant."""
    try:
        return int(connection.recv())
    except EOFError:
        raise RuntimeError(f"{name}: the worker ends before the first mutant; read one with --index") from None


def _found(outcome: Outcome, kind: str, number: int, text: str) -> None:
    outcome.kinds[kind] += 1
    if kind not in ("accepted", "sentence", "guard", "over time"):
        outcome.finds.append((kind, number, text))


def _work(name: str, seed: int, start: int, stop: int, connection: Any) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    add_test_folders()
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123
    os.dup2(sys.stderr.fileno(), 2)
    from .mutations_targets import TARGETS, WHOLE

    with tempfile.TemporaryDirectory(prefix="campaign-", dir=_folder()) as folder:
        place = Place(name, Path(folder))
        place.read(place.seeds[0])  # imports what it needs
        if (TARGETS | WHOLE)[name].guarded:
            limit = _guard_bytes(name)
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        elif name not in WHOLE:
            resource.setrlimit(resource.RLIMIT_AS, (WORKER_BYTES, WORKER_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        connection.send(_peak_kb())
        for number in range(start, stop):
            kind, text = place.read(content_of(name, seed, number, place.seeds), number)
            connection.send((kind, text[:500], _peak_kb()))


def _folder() -> str | None:
    memory = Path("/dev/shm")
    return str(memory) if os.access(memory, os.W_OK) else None


def _guard_bytes(name: str) -> int:
    """Return what the child of a small file may use; the campaign runs the same function under the same limit."""
    from onnx_files.limits import limits_for

    return limits_for(0).address_space_bytes


def _peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def add_test_folders() -> None:
    """Put the folders of the tests' own modules on the path, as pytest does."""
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    sys.path[:0] = [str(ROOT / folder) for folder in settings["pythonpath"] if str(ROOT / folder) not in sys.path]


# --- the command line ---


_HEADINGS = ("mutants", "sentences", "accepted", "by guard", "over 10 s", "unexpected", "crashes", "hangs", "peak MB")


def _table(outcomes: dict[str, Outcome]) -> Iterator[str]:
    yield f"{'target':20}" + "".join(f"{heading:>{len(heading) + 2}}" for heading in _HEADINGS)
    for name, found in outcomes.items():
        kinds = found.kinds
        counted = [
            kinds[kind] for kind in ("sentence", "accepted", "guard", "over time", "unexpected", "crash", "hang")
        ]
        row = zip(_HEADINGS, (kinds.total(), *counted, round(found.peak_mb)), strict=True)
        yield f"{name:20}" + "".join(f"{number:>{len(heading) + 2}}" for heading, number in row)


def main() -> int:
    """Run the campaign and return 1 where something was found."""
    from .mutations_targets import TARGETS, WHOLE

    parser = argparse.ArgumentParser(prog="python -m tests.campaigns.mutations", description=__doc__)
    parser.add_argument("--budget", type=int, default=1000, help="mutants of a cheap parser; a dear one gets a tenth")
    parser.add_argument("--whole", type=int, default=0, help="mutants through the real child process")
    parser.add_argument("--target", choices=[*TARGETS, *WHOLE], action="append", help="only these (may be repeated)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--seconds", type=float, default=math.inf, help="time for each target, at most")
    parser.add_argument("--index", type=int, help="make this one mutant again and show what becomes of it")
    asked = parser.parse_args()
    add_test_folders()
    if asked.index is not None:
        return _show(asked.target[0], asked.seed, asked.index)
    outcomes: dict[str, Outcome] = {}
    for name in asked.target or [*TARGETS, *(WHOLE if asked.whole else ())]:
        budget = (
            asked.whole or asked.budget
            if name in WHOLE
            else asked.budget // (10 if TARGETS[name].dear and not asked.target else 1)
        )
        outcomes[name] = run(name, asked.seed, asked.start, asked.start + budget, asked.seconds)
        print(list(_table({name: outcomes[name]}))[-1], flush=True)
        shown: Counter[str] = Counter()
        for kind, number, text in outcomes[name].finds:
            shown[text[:60]] += 1
            if shown[text[:60]] <= 2 and len(shown) <= 15:
                print(f"    {kind} --target {name} --seed {asked.seed} --index {number}: {text}", flush=True)
    print("\n".join(_table(outcomes)))
    return int(any(not outcome.clean for outcome in outcomes.values()))


def _show(name: str, seed: int, number: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        place = Place(name, Path(folder))
        content = content_of(name, seed, number, place.seeds)
        print(f"{len(content)} bytes, written to mutant.bin; begins {content[:80]!r}")
        Path("mutant.bin").write_bytes(content)
        kind, text = place.read(content, number)
        print(f"{kind}: {text}\npeak {_peak_kb() / 1024:.0f} MB")
        if kind in ("unexpected", "guard"):
            place.target.read(place.path)  # with its traceback
    return 0


if __name__ == "__main__":
    sys.exit(main())
