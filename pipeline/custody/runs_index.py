"""`edgeproof report RUN1 RUN2 …`: a page over runs, from their records alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from foundation.answer_documents import read_machine
from foundation.errors import UsageError
from foundation.record import read_record
from foundation.run_folder import RunFolder
from pipeline.exports.outside import refuse_inside_a_run, write_page
from reports import index_of_runs
from reports.index_of_runs import ListedRun

_LINKED = {"report": "index.html", "summary": "summary.md", "JSON": "report.json"}


@dataclass(frozen=True)
class WrittenIndex:
    """The page, and the folders whose record could not be read, each with the reason."""

    path: Path
    runs: int
    unreadable: tuple[str, ...]


def write_index(folders: Sequence[Path], output: Path | None = None) -> WrittenIndex:
    """Write a page over runs, in the order in which they are given, each once.

    Files among them, such as an earlier page, are passed over. A folder that is no run, or a damaged one, has its row
    with the reason.

    Args:
        folders: of the runs.
        output: the page; None for `index.html` in the folder that holds them all.

    Raises:
        UsageError: none of them is a run, or the page would lie in a run's folder.
        DiskError: the file system refused.
    """
    found = list(dict.fromkeys(path for path in folders if not path.is_file()))
    if not found:
        raise UsageError(f"{folders[0]}: expected folders of runs, found files alone. Name the folders.")
    path = output or Path(os.path.commonpath([folder.resolve().parent for folder in found])) / "index.html"
    refuse_inside_a_run(path, "--output")
    rows = [_row(folder, path.resolve().parent) for folder in found]
    wrong = tuple(row.why_not for row in rows if row.why_not)
    if len(wrong) == len(rows):
        raise UsageError(f"{wrong[0]} None of the {len(rows)} folders is a run that can be read.")
    write_page(path, index_of_runs.render(rows))
    return WrittenIndex(path, len(rows), wrong)


def _row(folder: Path, beside: Path) -> ListedRun:
    run = RunFolder(folder)
    try:
        record = read_record(run)
    except UsageError as error:
        name = folder.resolve().name  # the page may be handed on, and folders carry names of users
        return index_of_runs.unreadable(name, str(error).replace(str(folder), name))
    report = Path(os.path.relpath(run.report.resolve(), beside))
    links = {
        name: quote((report / file).as_posix()) for name, file in _LINKED.items() if (run.report / file).is_file()
    }
    return index_of_runs.listed(folder.resolve().name, record, _ended_utc(run), links)


def _ended_utc(run: RunFolder) -> str | None:
    try:
        return read_machine(run.machine).ended_utc
    except UsageError:  # nothing was timed, or by an older version
        return None
