"""Exports stand outside of the run's folder: a run holds what its record names, and nothing else."""

from __future__ import annotations

from pathlib import Path

from foundation.errors import UsageError
from foundation.files import write_text
from foundation.printable import printable_lines


def refuse_inside_a_run(path: Path, option: str) -> None:
    """Do nothing with a path that lies in no run folder.

    Args:
        path: of a file or folder to write.
        option: that names it, for the message.

    Raises:
        UsageError: a folder above it, or itself, is that of a run.
    """
    whole = path.resolve()
    for folder in (whole, *whole.parents):
        if (folder / "run.json").exists():
            raise UsageError(
                f"{option} {path}: expected a place outside of a run, found the folder of the run {folder.name}, in "
                "which `edgeproof check` takes no other files. Choose another place."
            )


def write_page(path: Path, page: str) -> None:
    """Write a page, atomically.

    Args:
        path: of the file.
        page: its text.

    Raises:
        UsageError: a folder is there.
        DiskError: the file system refused.
    """
    if path.is_dir():
        raise UsageError(f"{path}: expected the name of a file to write, found a folder. Name a file, PAGE.html.")
    write_text(path, printable_lines(page))
