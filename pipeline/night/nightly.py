"""The nightly: the same run unattended, compared with the accepted run, with a history that survives a kill."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from foundation.errors import EdgeproofError, ExitCode, UsageError
from foundation.files import write_json, write_text
from foundation.host_lock import computing
from foundation.lock import lock_folder
from foundation.measurements import UNINFORMED, Measurement
from foundation.run_files import add_to_record
from foundation.run_folder import RunFolder
from pipeline.judge.comparison import Comparison, compare
from pipeline.judge.comparison_text import nightly_markdown
from pipeline.judge.evidence import Evidence, read_evidence
from pipeline.judge.paired_runs import pair_runs
from pipeline.judge.tolerances import ComparisonSettings
from pipeline.night.accepted import Accepted, read_accepted
from pipeline.night.causes import Cause, causes
from pipeline.night.nights import History, Night, read_history, record_finish, record_start
from pipeline.night.recipe import FOLDER_NAME, Rerun

RUN_NAME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{6}Z")
HEADLINE_METRICS = ("balanced_accuracy", "auroc_macro", "saliency_spearman", "size_bytes", "latency_speedup")
DELETED_PREFIX = ".deleted-"
NOT_COMPARED = "not compared: the run could not begin"
NO_ACCEPTED_RUN = "no accepted run yet: the gates decide alone"


@dataclass(frozen=True)
class NightlyResult:
    """What one night came to.

    Attributes:
        run: the night's run folder.
        exit_code: the worst of the two below; 3 is worse than 1.
        gates_exit_code: what the run returned.
        comparison: with the accepted run; None where none was accepted yet or the run could not begin.
        causes: why it is red, as far as its inputs tell; empty where it is not, or nothing was compared.
        resumed: whether a killed night's folder was continued.
        notes: what a person should know, one sentence each.
        pruned: names of the run folders that were deleted.
    """

    run: RunFolder
    exit_code: ExitCode
    gates_exit_code: ExitCode
    comparison: Comparison | None
    causes: tuple[Cause, ...]
    resumed: bool
    notes: tuple[str, ...]
    pruned: tuple[str, ...]


def utc_now() -> datetime:
    """Return the present time in UTC."""
    return datetime.now(UTC)


def run_nightly(
    name: str,
    nightly_root: Path,
    configuration_sha256: str,
    run: Callable[[RunFolder], ExitCode],
    settings: ComparisonSettings,
    *,
    keep: int,
    rerun: Callable[[Accepted, Path], Rerun] | None = None,
    clock: Callable[[], datetime] = utc_now,
) -> NightlyResult:
    """Run one night under the folder's lock and compare it with the accepted run.

    A night that was killed and had the same configuration is resumed in its own folder; otherwise the night gets a
    new folder. Any error of the run is recorded in the history before it is passed on.

    Args:
        name: the configuration's name, for the texts.
        nightly_root: the folder of this configuration's nights; also of `history.jsonl` and `accepted.json`.
        configuration_sha256: digest of the configuration; decides whether a killed night may be resumed.
        run: does the whole run in the folder that it is given and returns the gates' exit code.
        settings: tolerances of the comparison.
        keep: how many run folders stay, the newest ones; at least 1. The accepted run stays besides.
        rerun: runs the accepted recipe again in the folder that it is given, where a night is red and its
            configuration is another one; None: nobody does.
        clock: returns the present time in UTC.

    Raises:
        UsageError: another process holds the folder, `keep` is below 1, or the file system refused a write.
    """
    if keep < 1:
        raise UsageError(
            f"keep: expected at least 1 run folder, found {keep}. Choose how many nights stay on the disk."
        )
    with lock_folder(nightly_root):
        history = read_history(nightly_root)
        accepted = read_accepted(nightly_root)  # before the run: a broken file should not cost a night
        folder, resumed = _run_folder(nightly_root, history, configuration_sha256, clock())
        night = record_start(nightly_root, folder.root.name, configuration_sha256, iso_utc(clock()))
        for text in _texts(folder):  # of a night that was killed before the record could name them
            text.unlink(missing_ok=True)
        try:
            gates_exit_code = run(folder)
            with computing():  # nights under way beside this one take times
                evidence = None if gates_exit_code == ExitCode.USAGE else read_evidence(folder)
                comparison = _compared(accepted, folder, evidence, settings) if accepted and evidence else None
            found = _causes(accepted, evidence, comparison, nightly_root, rerun)
        except Exception as error:
            night = replace(night, finished_utc=iso_utc(clock()), **_how_it_broke(error))
            record_finish(nightly_root, night)
            _write_texts(name, folder, night, None, (), _notes(history, accepted, resumed), history)
            raise
        exit_code = worst((gates_exit_code, comparison.exit_code if comparison else ExitCode.PASSED))
        night = replace(
            night,
            finished_utc=iso_utc(clock()),
            exit_code=exit_code,
            comparison=comparison.summary if comparison else NOT_COMPARED if accepted else NO_ACCEPTED_RUN,
            headline=headline(evidence) if evidence else {},
            intervals=headline_intervals(evidence) if evidence else {},
            suspects=tuple(dict.fromkeys(kind for cause in found for kind in cause.suspects)),
        )
        notes = _notes(history, accepted, resumed)
        _write_texts(name, folder, night, comparison, found, notes, history)
        record_finish(nightly_root, night)
        pruned = _prune(nightly_root, keep)
    return NightlyResult(folder, exit_code, gates_exit_code, comparison, found, resumed, notes, pruned)


def _compared(accepted: Accepted, folder: RunFolder, evidence: Evidence, settings: ComparisonSettings) -> Comparison:
    pairs = pair_runs(RunFolder(accepted.folder), accepted.evidence.record, folder, evidence.record)
    return compare(accepted.evidence, evidence, settings, pairs)


def _causes(
    accepted: Accepted | None,
    evidence: Evidence | None,
    comparison: Comparison | None,
    nightly_root: Path,
    rerun: Callable[[Accepted, Path], Rerun] | None,
) -> tuple[Cause, ...]:
    """Return why a night is red; where its configuration is under suspicion, the accepted recipe is run again."""
    if accepted is None or evidence is None or comparison is None:
        return ()
    found = causes(accepted.evidence, evidence, comparison)
    if rerun is None or not any("configuration" in cause.suspects for cause in found):
        return found
    return rerun(accepted, nightly_root / FOLDER_NAME).narrowed(found)


def worst(codes: Iterable[ExitCode]) -> ExitCode:
    """Return the code that says most against the evidence: 2 before 3 before 1 before 0."""
    order = (ExitCode.PASSED, ExitCode.GATE_FAILED, ExitCode.INCOMPLETE, ExitCode.USAGE)
    return max(codes, key=order.index)


def iso_utc(time: datetime) -> str:
    """Return a time as "2026-01-31T02:00:00Z"."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def headline(evidence: Evidence) -> dict[str, float | None]:
    """Return the measurements that the history keeps, "METRIC/VARIANT" to value; of several, the run's first."""
    return {name: one.value for name, one in _headline(evidence).items()}


def headline_intervals(evidence: Evidence) -> dict[str, tuple[float, float]]:
    """Return the 95 % intervals of those that have one."""
    return {name: one.ci95 for name, one in _headline(evidence).items() if one.ci95 is not None}


def _headline(evidence: Evidence) -> dict[str, Measurement]:
    found: dict[str, Measurement] = {}
    for one in evidence.measurements:
        if one.metric in HEADLINE_METRICS and one.variant not in UNINFORMED:
            found.setdefault(f"{one.metric}/{one.variant}", one)
    return found


def _run_folder(
    nightly_root: Path, history: History, configuration_sha256: str, now: datetime
) -> tuple[RunFolder, bool]:
    """Return the folder of tonight and whether it is that of a killed night."""
    if history.nights:
        last = history.nights[-1]
        folder = nightly_root / last.run
        same = last.configuration_sha256 == configuration_sha256
        # The name comes from a file: only one that this module gives leads into a folder.
        if last.status == "killed" and same and RUN_NAME.fullmatch(last.run) and folder.is_dir():
            return RunFolder(folder), True
    _remove_unbegun(nightly_root, history)
    taken = {night.run for night in history.nights}
    while True:
        name = iso_utc(now).replace(":", "")
        now += timedelta(seconds=1)
        if name in taken:  # deleted since, or the clock was set back: a name stands for one night
            continue
        try:
            (nightly_root / name).mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            raise UsageError(
                f"{nightly_root / name}: could not be created ({error.strerror}). Free some space or choose another "
                "folder."
            ) from error
        return RunFolder(nightly_root / name), False


def _remove_unbegun(nightly_root: Path, history: History) -> None:
    """Delete the empty folder of a night that was killed before its first line of the history."""
    known = {night.run for night in history.nights}
    for path in _run_folders(nightly_root):
        if path.name not in known and not any(path.iterdir()):
            path.rmdir()


def _how_it_broke(error: Exception) -> dict[str, Any]:
    if isinstance(error, EdgeproofError):
        return {"exit_code": int(error.exit_code), "error": str(error)}
    return {"exit_code": int(ExitCode.INCOMPLETE), "error": f"{type(error).__name__}: {error}"}


def _notes(history: History, accepted: Accepted | None, resumed: bool) -> tuple[str, ...]:
    notes = [f"A line of the history could not be read and was passed over: {entry}." for entry in history.unreadable]
    if history.nights and history.nights[-1].status == "killed":
        last = history.nights[-1]
        outcome = (
            "this night resumed it" if resumed else "its configuration or its folder changed, so this one began anew"
        )
        notes.append(f"The night {last.run} was killed before its end (attempt {last.attempts}); {outcome}.")
    if accepted is None:
        notes.append("No run was accepted yet, so the gates decide alone; `edgeproof accept RUN` accepts one.")
    elif accepted.reason:
        notes.append(
            f"The accepted run {accepted.evidence.run} ended with exit code {accepted.evidence.record.exit_code} "
            f"and was accepted for this reason: {accepted.reason}"
        )
    if accepted is not None and not accepted.is_intact:
        notes.append(
            f"The folder of the accepted run {accepted.evidence.run} changed since it was accepted; "
            "the copy of its measurements in accepted.json was compared."
        )
    return tuple(notes)


def _write_texts(
    name: str,
    folder: RunFolder,
    night: Night,
    comparison: Comparison | None,
    found: tuple[Cause, ...],
    notes: tuple[str, ...],
    history: History,
) -> None:
    """Write `comparison.json` and `comparison.md` beside the run's report, and record them."""
    nights = [*(past for past in history.nights if past.run != night.run), night]
    outcome = comparison.as_json() if comparison else {"format_version": 1, "accepted": None, "exit_code": None}
    table, text = _texts(folder)
    write_json(table, {**outcome, "causes": [asdict(cause) for cause in found], "notes": list(notes)})
    write_text(text, nightly_markdown(name, comparison, [cause.sentence for cause in found], notes, nights))
    if folder.record.exists():
        add_to_record(folder, (table, text))


def _texts(folder: RunFolder) -> tuple[Path, Path]:
    return folder.report / "comparison.json", folder.report / "comparison.md"


def _run_folders(nightly_root: Path) -> list[Path]:
    """Return the folders that bear the name of a night, in the order of their names."""
    paths = (path for path in nightly_root.iterdir() if RUN_NAME.fullmatch(path.name) and not path.is_symlink())
    return sorted(path for path in paths if path.is_dir())


def _prune(nightly_root: Path, keep: int) -> tuple[str, ...]:
    """Delete all but the newest `keep` run folders and the accepted one; what is no run folder is never touched.

    The history says which are the newest, since a clock may be set back; a folder that it does not know is older.
    """
    accepted = read_accepted(nightly_root)
    place = {night.run: number for number, night in enumerate(read_history(nightly_root).nights)}
    runs = sorted(_run_folders(nightly_root), key=lambda path: (place.get(path.name, -1), path.name))
    surplus = [run for run in runs[:-keep] if accepted is None or run.resolve() != accepted.folder.resolve()]
    try:
        for run in surplus:  # renamed first: a kill must not leave half a run under a run's name
            run.rename(run.with_name(DELETED_PREFIX + run.name))
        for leftover in nightly_root.glob(f"{DELETED_PREFIX}*"):
            shutil.rmtree(leftover)
    except OSError as error:
        raise UsageError(
            f"{error.filename}: an old run could not be deleted ({error.strerror}). Make it deletable, or delete it."
        ) from error
    return tuple(run.name for run in surplus)
