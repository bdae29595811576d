"""Exports stand outside of the run's folder: a run holds what its record names, and nothing else."""

from __future__ import annotations

from pathlib import Path

from foundation.errors import UsageError


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
