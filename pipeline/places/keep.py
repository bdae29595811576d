"""What was found elsewhere becomes part of a run: its file, the verdicts of the gates, and the report again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from foundation.errors import UsageError
from foundation.lock import lock_folder
from foundation.places import PlaceRecord, measured_everywhere, read_places, with_earlier, write_place
from foundation.record import RunRecord, Verdict, exit_code_of, read_record, write_record
from foundation.run_files import add_to_record, record_of_file, refuse_changed
from foundation.run_folder import RunFolder
from pipeline.judge.gate import Gate
from pipeline.judge.gates import judge
from reports import REPORT_FILES, write_report

if TYPE_CHECKING:
    from pipeline.judge.paired_runs import PairedRuns


def keep_places(run: RunFolder, found: Sequence[PlaceRecord]) -> RunRecord:
    """Make what was found at places part of a run, judge its gates again, and write its report again.

    A place that could not be asked leaves what it once answered about the same files as it is, and what it was not
    asked about now stays. The gates that the record holds are judged, none is changed.

    Args:
        run: the folder of a run that ended.
        found: what was found, one for each place.

    Returns:
        The run's record, with its new verdicts and exit code.

    Raises:
        UsageError: the folder is no run, another process holds it, or a file is not the one that was recorded.
    """
    read_record(run)  # what is no run is no folder to lock
    with lock_folder(run.root):
        record = read_record(run)
        own = [run.report / name for name in REPORT_FILES]
        refuse_changed(run, record, besides={path.relative_to(run.root).as_posix() for path in own})
        earlier = {one.place: one for one in read_places(run, record) if one.reason is None}
        new = [one for one in found if one.reason is None or one.place not in earlier]
        kept = [
            write_place(run, with_earlier(one, earlier[one.place]) if one.place in earlier else one) for one in new
        ]
        verdicts = judge_recorded(run, record)
        files = {path.relative_to(run.root).as_posix(): record_of_file(path) for path in kept}
        ended = exit_code_of(verdicts, record.all_stages_succeeded)
        write_record(run, replace(record, verdicts=verdicts, exit_code=ended, files={**record.files, **files}))
        write_report(run)
        add_to_record(run, own)
        return read_record(run)


def judge_recorded(run: RunFolder, record: RunRecord) -> tuple[Verdict, ...]:
    """Return what the gates of a run's own configuration say of everything that was measured, here and elsewhere.

    Raises:
        UsageError: the record holds gates that this version does not know.
    """
    try:
        gates = TypeAdapter(tuple[Gate, ...]).validate_python(record.configuration.get("gates", ()), strict=False)
    except ValidationError as error:
        raise UsageError(
            f"{record.name}: expected the gates of its configuration as this version knows them, found "
            f"{error.errors()[0]['msg']}. Run it again with this version of edgeproof."
        ) from error
    return judge(gates, measured_everywhere(run, record), against_the_accepted_run(gates, run, record))


def against_the_accepted_run(gates: Sequence[Gate], run: RunFolder, record: RunRecord) -> PairedRuns:
    """Return how the answers differ from those of the run that was accepted beside this one, where a gate asks."""
    from pipeline.judge.paired_runs import NOTHING_ACCEPTED, pair_runs
    from pipeline.night.accepted import read_accepted

    asked = any(gate.asks_accepted for gate in gates)
    accepted = read_accepted(run.root.resolve().parent) if asked else None
    if accepted is None:
        return NOTHING_ACCEPTED
    return pair_runs(RunFolder(accepted.folder), accepted.evidence.record, run, record)
