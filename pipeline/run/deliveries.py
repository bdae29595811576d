"""What workers computed ahead of the run's own flow: each stage's delivery, written after its outputs.

A delivery says as much as a record's line of a stage: key, digests, seconds. It lies in a hidden folder of the run,
is no evidence, and goes when the run is concluded. A worker that was killed leaves none, and its stage is computed
again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from foundation.files import JSON, sha256_of_file
from foundation.host_lock import computing
from foundation.record import RunRecord
from foundation.sealed_files import seal_fault, write_sealed
from pipeline.run.stage import Stage

if TYPE_CHECKING:
    from foundation.run_folder import RunFolder

_FOLDER = ".work"
T = TypeVar("T")


class Performer(Protocol):
    """Whoever performs stages: the ledger of a run, a worker of it, or one who only looks what is there."""

    @property
    def run(self) -> RunFolder:
        """The run folder."""

    @property
    def record(self) -> RunRecord:
        """Of the run, as far as it has come."""

    def perform(self, stage: Stage, compute: Callable[[], T], read: Callable[[], T]) -> T:
        """Return a stage's result, computed or read."""


@dataclass(frozen=True)
class Delivery:
    """One stage that a worker performed.

    Attributes:
        name: of the stage.
        key: its identity.
        outputs: path relative to the run folder → sha256.
        seconds: how long it took.
    """

    name: str
    key: str
    outputs: Mapping[str, str]
    seconds: float


def work_folder(run: RunFolder) -> Path:
    """Return the hidden folder of what is needed only while a run is under way."""
    return run.root / _FOLDER


def is_delivery(name: str) -> bool:
    """Return whether a path relative to a run folder is a delivery's, which is written after its outputs."""
    return name.startswith(f"{_FOLDER}/delivered/")


def remove_work(run: RunFolder) -> None:
    """Delete what is needed only while a run is under way."""
    shutil.rmtree(work_folder(run), ignore_errors=True)


def find_delivery(run: RunFolder, stage: Stage, key: str) -> Delivery | None:
    """Return the delivery of a stage with this key whose outputs are all as they were written; None without one."""
    path = _path(run, stage.name)
    try:
        content = path.read_bytes()
        if seal_fault(content) is not None:
            return None
        values = json.loads(content)
        found = Delivery(values["name"], values["key"], values["outputs"], float(values["seconds"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if (found.name, found.key) != (stage.name, key) or not are_as_written(run, stage, found.outputs):
        return None
    return found


def are_as_written(run: RunFolder, stage: Stage, outputs: Mapping[str, JSON]) -> bool:
    """Return whether a stage has outputs and each lies there with the digest that was written down."""
    return bool(stage.outputs) and all(
        path.is_file() and outputs.get(path.relative_to(run.root).as_posix()) == sha256_of_file(path)
        for path in stage.outputs
    )


def deliver(run: RunFolder, stage: Stage, key: str, seconds: float) -> Delivery:
    """Write down that a stage's outputs are there; return it."""
    outputs = {path.relative_to(run.root).as_posix(): sha256_of_file(path) for path in stage.outputs}
    delivery = Delivery(stage.name, key, outputs, round(seconds, 3))
    write_sealed(_path(run, stage.name), asdict(delivery))
    return delivery


def is_there(run: RunFolder, record: RunRecord | None, stage: Stage, key: str) -> bool:
    """Return whether a stage's result was recorded or delivered, and lies there."""
    stages = record.stages if record is not None else ()
    earlier = next((one for one in stages if one.name == stage.name), None)
    if (
        earlier is not None
        and earlier.key == key
        and earlier.succeeded
        and are_as_written(run, stage, earlier.outputs)
    ):
        return True
    return find_delivery(run, stage, key) is not None


class NeededStage(Exception):  # noqa: N818 - an answer, no error
    """Tells the first stage that is not there."""

    def __init__(self, name: str, key: str) -> None:
        super().__init__(name)
        self.name = name
        self.key = key


@dataclass(frozen=True)
class Looking:
    """Reads what is there and computes nothing.

    Attributes:
        run: the run folder.
        record: of the run under way.
        earlier: of an earlier run in the folder.
    """

    run: RunFolder
    record: RunRecord
    earlier: RunRecord | None

    def perform(self, stage: Stage, compute: Callable[[], T], read: Callable[[], T]) -> T:
        """Return a stage's result.

        Raises:
            NeededStage: it is not there.
        """
        key = stage.key
        if is_there(self.run, self.record, stage, key) or is_there(self.run, self.earlier, stage, key):
            return read()
        raise NeededStage(stage.name, key)


class OtherKeyError(Exception):
    """This process would compute another result than the one that is asked for."""


@dataclass(frozen=True)
class Delivering:
    """Performs stages and delivers them; what is there is read.

    Attributes:
        run: the run folder.
        record: of the run under way.
        needed: the first stage that is asked for, and the key that it must have.
    """

    run: RunFolder
    record: RunRecord
    needed: NeededStage

    def perform(self, stage: Stage, compute: Callable[[], T], read: Callable[[], T]) -> T:
        """Return a stage's result, computed and delivered where it was not there.

        Raises:
            OtherKeyError: it is the one that is asked for, and has another identity here.
        """
        key = stage.key
        if stage.name == self.needed.name and key != self.needed.key:
            raise OtherKeyError(f"the stage {stage.name} has the key {key[:12]} there, {self.needed.key[:12]} here")
        if is_there(self.run, self.record, stage, key):
            return read()
        with computing():
            started = time.perf_counter()
            result = compute()
            deliver(self.run, stage, key, time.perf_counter() - started)
        return result


def _path(run: RunFolder, name: str) -> Path:
    return work_folder(run) / "delivered" / f"{name}.json"
