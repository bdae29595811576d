"""Asking a place: its command in a process of its own, watched, and ended where it stands still."""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from foundation.cache_folder import cache_folder
from foundation.child import child_environment
from foundation.errors import NotMeasuredError, StageError
from foundation.progress import Progress, no_progress
from stages.validate.places.place import Place, there
from stages.validate.places.protocol import (
    Array,
    FileAnswer,
    PlaceAnswer,
    Question,
    output_of,
    read_answer,
    write_job,
)

DEFAULT_STALL_S = 300.0
"""Seconds without a sign of life after which a place has hung: an image of 224 px takes an emulator two to five."""

_QUOTED_LINES = 3


@dataclass(frozen=True)
class Answered:
    """What a place answered.

    Attributes:
        versions: what ran there.
        outputs: question → output → array [n, …]; without those that failed.
        errors: question → why it has no answer, a part of a sentence.
        placements: question → provider → operator → nodes, where the runtime tells.
        times_ms: question → milliseconds of each query, where the place is real.
    """

    versions: Mapping[str, str]
    outputs: Mapping[str, Mapping[str, Array]]
    errors: Mapping[str, str]
    placements: Mapping[str, Mapping[str, Mapping[str, int]]]
    times_ms: Mapping[str, tuple[float, ...]]


def ask(
    name: str,
    place: Place,
    questions: Sequence[Question],
    progress: Progress = no_progress,
    stall_s: float = DEFAULT_STALL_S,
    threads: int = 1,
) -> Answered:
    """Let a place answer questions.

    A file that fails there costs its own answers alone. Where the place crashes, hangs or is killed, what it answered
    before that counts, and the others say how it ended.

    Args:
        name: of the place, for messages.
        place: where.
        questions: what to ask, each with another name.
        progress: called with the queries that are done and their total.
        stall_s: seconds without a sign of life after which it has hung.
        threads: of each session.

    Raises:
        NotMeasuredError: the place is not installed, or not what it says it is.
        StageError: it ended before it answered anything.
    """
    why_not = place.why_not()
    if why_not is not None:
        raise NotMeasuredError(why_not)
    with tempfile.TemporaryDirectory(prefix="edgeproof-place-") as made:
        folder = Path(made)
        write_job(folder, questions, threads, place.kind == "real", place.job)
        ended = _run(place.command(folder), place.environment(), folder, _counting(questions, progress), stall_s)
        if not (folder / "answer.json").is_file():
            raise StageError(f"{name}: expected answers, found that the place {ended or 'gave none'}.")
        try:
            answer = read_answer(folder)
        except StageError as error:
            raise StageError(f"{name}: {error}.") from error
        place.check(answer)
        return _collect(folder, questions, answer, ended, place)


def _collect(
    folder: Path, questions: Sequence[Question], answer: PlaceAnswer, ended: str | None, place: Place
) -> Answered:
    outputs: dict[str, Mapping[str, Array]] = {}
    errors: dict[str, str] = {}
    for question in questions:
        found = answer.files.get(question.name, FileAnswer(error=f"the place {ended or 'skipped it'}"))
        if found.error is not None:
            errors[question.name] = place.told(_without_paths(found.error, folder))
            continue
        try:
            outputs[question.name] = {name: output_of(folder, question, found, name) for name in question.outputs}
        except StageError as error:
            errors[question.name] = str(error)
    known = {name: found for name, found in answer.files.items() if name in outputs}
    return Answered(
        dict(answer.versions),
        outputs,
        errors,
        {name: found.placement for name, found in known.items() if found.placement is not None},
        {name: found.times_ms for name, found in known.items() if found.times_ms is not None},
    )


def _counting(questions: Sequence[Question], progress: Progress) -> Callable[[str], None]:
    """Return what turns a place's lines, "NAME done n" each, into progress over all its questions."""
    total = sum(question.n for question in questions)
    done = dict.fromkeys((question.name for question in questions), 0)

    def take(line: str) -> None:
        name, _, rest = line.partition(" ")
        count = rest.split(" ")[0]
        if name in done and count.isascii() and count.isdigit():
            done[name] = min(int(count[:9]), total)
            progress(min(sum(done.values()), total), total)

    return take


# --- the process ---


def _run(
    command: list[str],
    environment: Mapping[str, str],
    folder: Path,
    take: Callable[[str], None],
    stall_s: float,
) -> str | None:
    """Run a command and return how it went wrong, "hung…" or "crashed…"; None where it ended well."""
    variables = {
        "ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1", "TMPDIR": str(folder), "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    started = [sys.executable, "-P", str(there("start.py")), str(os.getpid()), *command]
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            started,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=child_environment({**variables, **environment}),
            start_new_session=True,
        )
        assert child.stdout is not None
        try:
            alive = _follow(child.stdout, take, stall_s)
            if not alive:
                return f"hung: it gave no sign of life for {stall_s:g} s"
            code = child.wait(timeout=stall_s)
        except subprocess.TimeoutExpired:
            return f"hung: it did not end within {stall_s:g} s"
        finally:
            _kill(child)
        errors.seek(0)
        told = errors.read()[-20_000:].decode(errors="replace")
        return _how_it_ended(code, _without_paths(told, folder))


def _follow(lines: IO[bytes], take: Callable[[str], None], stall_s: float) -> bool:
    """Hand each line on until the stream ends; return False where it fell silent before."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(lines, selectors.EVENT_READ)
        while True:
            if not selector.select(timeout=stall_s):
                return False
            chunk = os.read(lines.fileno(), 1 << 16)
            if not chunk:
                return True
            *whole, rest = (rest + chunk).split(b"\n")
            rest = rest[-1000:]
            for line in whole:
                take(line.decode(errors="replace"))


def _without_paths(text: str, folder: Path) -> str:
    """Return what a place said without where its job lay, a random name, and where the user's caches lie."""
    return text.replace(f"{folder}/", "").replace(str(folder), "the job").replace(f"{cache_folder()}/", "")


def _how_it_ended(code: int, told: str) -> str | None:
    if code == 0:
        return None
    lines = [line for line in told.strip().splitlines() if "warning: TCG doesn't support" not in line]
    last = " ".join(line.strip() for line in lines[-_QUOTED_LINES:])[-500:] or "without a word"
    if code < 0 or code > 128:
        number = -code if code < 0 else code - 128
        return f"was killed by signal {number} ({signal.strsignal(number) or 'unknown'}): {last}"
    return f"ended with exit code {code}: {last}"


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a place's process with all that it started; one that has ended leaves its group to nobody else."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        child.kill()
    deadline = time.monotonic() + 10
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    if child.stdout is not None:
        child.stdout.close()
