"""The files of a run on the disk, held against what its record says of them.

Hidden files (the lock, half-written ones, what a file browser leaves) are none of the run's: nothing reads them.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from foundation.errors import UsageError
from foundation.files import sha256_of_file
from foundation.record import FORMAT_VERSION, FileRecord, RunRecord, read_record, write_record
from foundation.run_folder import RunFolder
from foundation.sealed_files import SHOWN_DIGITS

State = Literal["intact", "changed", "missing", "unrecorded", "unusable"]
"""unrecorded: the record does not name it; unusable: no plain file inside the run folder, or no readable one."""

Stamp = tuple[int, int, int, int]
"""What changes whenever a file is written: its times of change, its size, and which file it is."""


@dataclass(frozen=True)
class CheckedFile:
    """One file of a run folder and how it stands to the record.

    Attributes:
        path: relative to the run folder.
        state: how it is.
        size_bytes: of the file that is there; None where it is missing or unusable.
        expected_sha256: by the record; None where the record does not name it.
        found_sha256: of the file that is there; None likewise.
    """

    path: str
    state: State
    size_bytes: int | None
    expected_sha256: str | None
    found_sha256: str | None

    @property
    def sentence(self) -> str:
        """What was expected, what was found and what to do, for a file that is not intact."""
        expected, found = (str(one)[:SHOWN_DIGITS] for one in (self.expected_sha256, self.found_sha256))
        return {
            "intact": f"sha256 {found}, as recorded.",
            "changed": f"expected sha256 {expected} as recorded, found {found}. It was changed after the run wrote "
            "it: take it from a copy, or delete it and run again.",
            "missing": f"expected a file of sha256 {expected} as recorded, found nothing. "
            "Take it from a copy, or run again.",
            "unrecorded": f"expected only files that the record names, found another one of sha256 {found}. Move it "
            "out of the run folder.",
            "unusable": "expected a plain file inside the run folder"
            f"{f', of sha256 {expected} as recorded' if self.expected_sha256 else ''}; found what is none or cannot "
            "be read. Take it from a copy, or delete it and run again.",
        }[self.state]


# --- what is there ---


def files_below(root: Path) -> Iterator[str]:
    """Yield the paths of a run's files relative to its folder, links among them, in no order of meaning.

    The record, its signature and hidden files are left out.
    """
    own = {RunFolder(root).record, RunFolder(root).signature}
    for folder, folders, names in os.walk(root):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for path in (Path(folder) / name for name in sorted((*names, *links)) if not name.startswith(".")):
            if path not in own:
                yield path.relative_to(root).as_posix()


def stamps_below(root: Path) -> dict[str, Stamp]:
    """Return the stamp of each file that a record can name: no link, and a name that can be printed."""
    found = {path: (root / path).lstat() for path in files_below(root) if _is_recordable(root, path)}
    return {path: (one.st_mtime_ns, one.st_ctime_ns, one.st_size, one.st_ino) for path, one in found.items()}


def record_of_file(path: Path) -> FileRecord:
    """Return what a record says of a file that exists."""
    return FileRecord(sha256_of_file(path), path.stat().st_size)


def add_to_record(run: RunFolder, paths: Iterable[Path]) -> None:
    """Record files that were written into a run's folder after its stages; leave `run.json` if it knows them already.

    Raises:
        UsageError: `run.json` is missing, damaged or edited.
    """
    record = read_record(run)
    if record.format_version != FORMAT_VERSION:  # says nothing of such files
        return
    added = {path.relative_to(run.root).as_posix(): record_of_file(path) for path in paths}
    files = {**record.files, **added}
    if files != record.files:
        write_record(run, replace(record, files=files))


# --- whether it is what the record says ---


def check_files(run: RunFolder, record: RunRecord, besides: Collection[str] = ()) -> tuple[CheckedFile, ...]:
    """Hold every file of a run folder against its record, but those in `besides`, and return them by path.

    A record of format 2 names the outputs of the stages alone: of such a run, other files are not looked at.
    """
    expected = _recorded(record)
    found = set(files_below(run.root)) if record.format_version == FORMAT_VERSION else set()
    paths = sorted((found | expected.keys()) - set(besides))
    return tuple(_check(run.root, path, expected.get(path)) for path in paths)


def refuse_changed(run: RunFolder, record: RunRecord, besides: Collection[str] = ()) -> None:
    """Do nothing with a run whose files are all as its record says.

    Args:
        run: the folder.
        record: of it.
        besides: paths relative to the folder that need not be.

    Raises:
        UsageError: a file was changed, is missing, or is none of the run's; of several, the first by name.
    """
    bad = [one for one in check_files(run, record, besides) if one.state != "intact"]
    if bad:
        others = f" {len(bad) - 1} more are not as recorded." if len(bad) > 1 else ""
        raise UsageError(
            f"{run.root / bad[0].path}: {bad[0].sentence}{others} `edgeproof check {run.root}` lists all."
        )


def why_unverified(record: RunRecord) -> str | None:
    """Return why a run's measurements cannot be held against its record, as a sentence; None where they can."""
    if record.format_version == FORMAT_VERSION:
        return None
    return (
        f"The record of {record.name} has format {record.format_version}, which names the stages' outputs alone: "
        "its measurements cannot be verified. Run it again with this version."
    )


def _recorded(record: RunRecord) -> Mapping[str, str]:
    if record.format_version == FORMAT_VERSION:
        return {path: of.sha256 for path, of in record.files.items()}
    return {**record.outputs, **{variant.path: variant.sha256 for variant in record.variants}}


def _check(root: Path, path: str, expected: str | None) -> CheckedFile:
    there = root / path
    try:
        if not _is_inside(root, path):
            return CheckedFile(path, "unusable", None, expected, None)
        if not there.is_file():
            state: State = "unusable" if os.path.lexists(there) else "missing"
            return CheckedFile(path, state, None, expected, None)
        size, found = there.stat().st_size, sha256_of_file(there)
    except (OSError, ValueError):
        return CheckedFile(path, "unusable", None, expected, None)
    if expected is None:
        return CheckedFile(path, "unrecorded", size, None, found)
    return CheckedFile(path, "intact" if found == expected else "changed", size, expected, found)


def _is_inside(root: Path, path: str) -> bool:
    """Return whether a path leads to something inside the folder, links followed: it comes from a file."""
    parts = PurePosixPath(path)
    return (
        not parts.is_absolute() and ".." not in parts.parts and (root / path).resolve().is_relative_to(root.resolve())
    )


def _is_recordable(root: Path, path: str) -> bool:
    return path.isprintable() and not (root / path).is_symlink() and (root / path).is_file()
