"""The journal of a search: Optuna's own format, one entry a line, which a kill at any point leaves readable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

from foundation.files import write_bytes

if TYPE_CHECKING:
    from optuna.storages import JournalStorage
    from optuna.storages.journal._file import BaseJournalFileLock


def open_journal(path: Path) -> JournalStorage:
    """Return a journal as Optuna takes it; the file and its folder are made where there are none.

    Args:
        path: of the journal. Half an entry at its end, which nobody could read past, is dropped.

    Raises:
        ValueError: an entry is damaged.
        UsageError: the file system refused a write.
    """
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path.parent.mkdir(parents=True, exist_ok=True)
    _drop_half_line(path)
    lock = cast("BaseJournalFileLock", _Lock(path))
    return JournalStorage(JournalFileBackend(str(path), lock))


class _Lock:
    """What Optuna takes around each entry. The kernel releases it when the process dies.

    Optuna's own lock is a file that a killed process leaves behind: the next one waits for half a minute, or for ever
    where the journal's path is relative.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._descriptor = -1

    def acquire(self) -> bool:
        """Wait until nobody else appends."""
        import fcntl

        self._descriptor = os.open(self._journal, os.O_RDWR)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return True

    def release(self) -> None:
        """Let others append."""
        os.close(self._descriptor)


def _drop_half_line(journal: Path) -> None:
    # A process that loses its power leaves half an entry.
    written = journal.read_bytes() if journal.exists() else b""
    whole = written[: written.rfind(b"\n") + 1]
    if whole != written:
        write_bytes(journal, whole)
