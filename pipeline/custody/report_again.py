"""`edgeproof report`: the report of a run from its files, once these are what the run wrote."""

from __future__ import annotations

from pathlib import Path

from foundation.lock import lock_folder
from foundation.record import read_record
from foundation.run_files import add_to_record, refuse_changed, why_unverified
from foundation.run_folder import RunFolder
from reports import REPORT_FILES, write_report


def report_again(run: RunFolder) -> tuple[Path, str | None]:
    """Write a run's report again and record it; what the report itself consists of may be missing or changed.

    Returns:
        The path of `index.html`, and why its numbers could not be verified; None where they were.

    Raises:
        UsageError: the folder is no run, another process holds it, or a file is not the one that was recorded.
    """
    read_record(run)  # what is no run is no folder to lock
    with lock_folder(run.root):
        record = read_record(run)
        own = [run.report / name for name in REPORT_FILES]
        refuse_changed(run, record, besides={path.relative_to(run.root).as_posix() for path in own})
        path = write_report(run)
        add_to_record(run, own)
    return path, why_unverified(record)
