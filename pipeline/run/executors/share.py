"""A run's files where workers do not see its folder: handed over through a store, by their digests.

What fsspec opens is a share. A file lies in it under the sha256 of its bytes, so nothing there is ever changed, and
whoever fetches a file knows whether it is whole.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.cache_folder import cache_folder
from foundation.errors import DiskError, UsageError
from foundation.files import atomic_path, sha256_of_file
from foundation.run_files import files_below
from foundation.run_folder import RunFolder
from pipeline.run.deliveries import is_delivery, work_folder

if TYPE_CHECKING:
    from pipeline.run.executors.task import Task

_OF_ONE_PROCESS = ("memory://",)


class Share:
    """A place that every host of a cluster reaches."""

    def __init__(self, url: str) -> None:
        """Open it.

        Raises:
            UsageError: fsspec is not installed, or knows no such place.
        """
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise UsageError(
                "--share: expected fsspec in this environment, found none. `pip install 'edgeproof[ray]'`."
            ) from error
        if url.startswith(_OF_ONE_PROCESS):
            raise UsageError(
                f"--share: expected a place that every host reaches, found {url!r}. Give file://, s3://…"
            )
        try:
            found: tuple[Any, str] = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UsageError(f"--share: {url!r} could not be opened ({error}). Mend the URL.") from error
        self._url = url
        self._files, self._root = found
        self._there: set[str] = set()

    def refuse_unwritable(self) -> None:
        """Do nothing where a file can be written.

        Raises:
            UsageError: it cannot.
        """
        probe = f"{self._root}/probe-{os.getpid()}"
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(probe, b"edgeproof")
            self._files.rm_file(probe)
        except Exception as error:  # each store raises its own
            raise UsageError(
                f"--share: {self._url} could not be written ({_what(error)}). Choose another."
            ) from error

    def put(self, path: Path) -> str:
        """Hand a file over; return its sha256.

        A file that stayed as it is is neither read nor asked for again: each task names every file of its run.

        Raises:
            DiskError: the share took no file.
        """
        sha256 = sha256_of_file(path)
        if sha256 in self._there:
            return sha256
        there = f"{self._root}/{sha256}"
        try:
            if not self._files.exists(there) or self._files.size(there) != path.stat().st_size:
                self._files.makedirs(self._root, exist_ok=True)
                self._files.put_file(str(path), there)
        except Exception as error:  # likewise
            raise DiskError(f"{self._url}: {path.name} could not be written there ({_what(error)}).") from error
        self._there.add(sha256)
        return sha256

    def fetch(self, sha256: str, path: Path) -> None:
        """Write a file that was handed over, atomically.

        Raises:
            UsageError: it is not there, or not whole.
        """
        with atomic_path(path) as temporary:
            try:
                self._files.get_file(f"{self._root}/{sha256}", str(temporary))
            except Exception as error:  # likewise
                raise UsageError(f"{self._url}: {path.name} could not be read there ({_what(error)}).") from error
            if sha256_of_file(temporary) != sha256:
                raise UsageError(f"{self._url}: {path.name} is not what was handed over. Delete it there.")


def put_run(share: Share, run: RunFolder) -> dict[str, str]:
    """Hand over every file of a run, what is under way and its record; return path in the folder → sha256."""
    under_way = sorted(path for path in work_folder(run).rglob("*") if path.is_file())
    names = (
        *(name for name in files_below(run.root) if not name.startswith("report/")),
        *(path.relative_to(run.root).as_posix() for path in under_way),
        run.record.name,
    )
    return {name: share.put(run.root / name) for name in names}


def take_run(share: Share, run: RunFolder, files: Mapping[str, str]) -> None:
    """Write what a worker handed over into the run folder, deliveries last."""
    for name in sorted(files, key=is_delivery):
        path = run.root / name
        if not path.resolve().is_relative_to(run.root.resolve()):
            raise UsageError(f"a worker handed over {name!r}, which lies outside the run folder. It is not taken.")
        if not path.is_file() or sha256_of_file(path) != files[name]:
            share.fetch(files[name], path)


@contextmanager
def folder_of(task: Task, written: dict[str, str]) -> Iterator[RunFolder]:
    """Yield the run folder of a task as this host sees it; hand over what was written there when the block ends well.

    Args:
        task: the task.
        written: filled with path → sha256 of what was handed over; with nothing where the folder itself is seen.
    """
    if task.share is None:
        yield RunFolder(Path(task.run))
        return
    share = Share(task.share)
    with tempfile.TemporaryDirectory(prefix="edgeproof-task-") as name:
        root = Path(name)
        for path, sha256 in task.files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).symlink_to(_kept(share, sha256))
        yield RunFolder(root)
        for found in sorted(one for one in root.rglob("*") if one.is_file() and not one.is_symlink()):
            written[found.relative_to(root).as_posix()] = share.put(found)


def _kept(share: Share, sha256: str) -> Path:
    """Return a file of the share in this host's cache: tasks of one run need the same images."""
    path = cache_folder() / "shared" / sha256
    if not path.is_file() or sha256_of_file(path) != sha256:
        share.fetch(sha256, path)
    return path


def _what(error: Exception) -> str:
    return f"{type(error).__name__}: {getattr(error, 'strerror', None) or error}"
