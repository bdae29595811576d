"""The record of a run's stages, and reuse of what is already there.

A stage's key is a sha256 over its name, its inputs' hashes, its settings, its source code and the versions of the
libraries that compute. A stage whose record has the same key, ended well and left outputs with the recorded hashes is
not computed again. Failures are recorded, never reused.

With every step, each file that was written since the step before is recorded with its digest, so that no stage has to
tell what it leaves beside its outputs: caches, logs, reports.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from foundation.artifacts import OnnxModel
from foundation.errors import DiskError, ExitCode, NotMeasuredError, StageError, UsageError
from foundation.files import JSON
from foundation.host_lock import alone_on_host, computing, nobody
from foundation.record import (
    FORMAT_VERSION,
    FileRecord,
    RunRecord,
    StageRecord,
    Status,
    VariantRecord,
    Verdict,
    read_record,
    write_record,
)
from foundation.run_files import Stamp, record_of_file, stamps_below
from foundation.run_folder import RunFolder
from pipeline.run.deliveries import Performer, are_as_written, find_delivery
from pipeline.run.stage import Stage

if TYPE_CHECKING:
    from calibration_data.prepared import PreparedData

T = TypeVar("T")


def stage_of_answers(
    kind: str,
    performer: Performer,
    data: PreparedData,
    files: tuple[OnnxModel, OnnxModel],
    settings: Mapping[str, JSON],
    modules: tuple[str, ...],
    outputs: tuple[Path, ...],
) -> Stage:
    """Return the stage of what a file answers: it belongs to a processor, which may round or saturate in its own way.

    Args:
        kind: what is asked.
        performer: of the run's stages.
        data: the images.
        files: fp32 and the file that is asked.
        settings: what the configuration says about it.
        modules: as of a stage.
        outputs: likewise.
    """
    fp32, model = files
    return Stage(
        kind=kind,
        subject=model.variant,
        inputs={"model": model.sha256, "fp32": fp32.sha256, "data": data.sha256},
        settings={**settings, "processor": asdict(performer.record.environment.cpu)},
        modules=modules,
        outputs=outputs,
    )


@dataclass
class Ledger:
    """`run.json` while a run is under way.

    Attributes:
        run: the run folder.
        record: of this run, as far as it has come; replaced with every step.
        earlier: what an earlier run in the same folder recorded, for reuse; None where there was none.
        stamps: of the files that were recorded, or that nobody of ours wrote, when they were last looked at.
        given_up: name of a stage → why this process must not compute it: it broke every worker that tried.
    """

    run: RunFolder
    record: RunRecord
    earlier: RunRecord | None
    stamps: Mapping[str, Stamp] = field(default_factory=dict)
    given_up: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def open(cls, run: RunFolder, record: RunRecord) -> Ledger:
        """Return the ledger of a run that begins with a record.

        What an earlier run recorded of a file stays until this one writes it. A file that it did not record belongs
        to the run only where that run was interrupted, which may have kept it from recording.

        Raises:
            UsageError: the folder holds a record that is damaged, edited or of another format.
        """
        earlier = read_record(run) if run.record.exists() else None
        if earlier is None or earlier.format_version != FORMAT_VERSION:
            return cls(run, record, earlier)
        ended = earlier.exit_code is not None
        stamps = {path: stamp for path, stamp in stamps_below(run.root).items() if ended or path in earlier.files}
        return cls(run, replace(record, files=earlier.files), earlier, stamps)

    def perform(self, stage: Stage, compute: Callable[[], T], read: Callable[[], T]) -> T:
        """Return a stage's result, computed or reused, and record how it went.

        Args:
            stage: what identifies the result.
            compute: does the work and leaves `stage.outputs`.
            read: returns the result from outputs that are already there.

        Raises:
            StageError: what `compute` or `read` raised, after it was recorded (unless it was the run's first stage).
            UsageError: likewise.
        """
        key = stage.key
        reusable = self._is_reusable(stage, key)
        delivery = None if reusable else find_delivery(self.run, stage, key)
        started = time.perf_counter()
        try:
            result = read() if reusable or delivery is not None else self._compute(stage, compute)
        except (OSError, DiskError):
            raise  # the disk or the system refused: no fault of the stage, and nothing else would fare better
        except (StageError, UsageError) as error:
            if self.record.stages:  # a run whose first stage refuses its input has not begun and leaves no record
                status: Status = "not_measured" if isinstance(error, NotMeasuredError) else "failed"
                self._add(stage, key, status, time.perf_counter() - started, str(error))
            raise
        except Exception as error:
            # Whatever a library raised: this stage has no result, and the others may still have theirs.
            message = f"{stage.name}: an unexpected {type(error).__name__}: {error}. `edgeproof --debug` shows where."
            self._add(stage, key, "failed", time.perf_counter() - started, message)
            raise StageError(message) from error
        seconds = time.perf_counter() - started if delivery is None else delivery.seconds
        self._add(stage, key, "reused" if reusable else "done", seconds, None)
        return result

    def _compute(self, stage: Stage, compute: Callable[[], T]) -> T:
        if stage.name in self.given_up:
            raise StageError(self.given_up[stage.name])
        with alone_on_host(nobody) if stage.takes_times else computing():
            return compute()

    def describe_data(self, data: PreparedData) -> None:
        """Record what the images are."""
        self.record = replace(self.record, task=data.task, synthetic=data.synthetic, classes=tuple(data.classes))
        self.write()

    def add_variant(self, model: OnnxModel) -> None:
        """Record a compiled file."""
        variant = VariantRecord(
            model.variant,
            model.notes.method,
            self._relative(model.path),
            model.sha256,
            model.size_bytes,
            model.parent_sha256,
            model.settings,
            model.notes,
        )
        self.record = replace(self.record, variants=(*self.record.variants, variant))
        self.write()

    def conclude(self, verdicts: Sequence[Verdict], exit_code: ExitCode) -> None:
        """Record what the gates say and how the run ended."""
        self.record = replace(self.record, verdicts=tuple(verdicts), exit_code=exit_code)
        self.write()

    def write(self) -> None:
        """Write `run.json`; stages that an interrupted run has not reached yet keep their earlier record."""
        self._record_files({})
        later: tuple[StageRecord, ...] = ()
        if self.record.exit_code is None and self.earlier is not None:
            seen = {stage.name for stage in self.record.stages}
            later = tuple(stage for stage in self.earlier.stages if stage.name not in seen)
        write_record(self.run, replace(self.record, stages=(*self.record.stages, *later)))

    def _is_reusable(self, stage: Stage, key: str) -> bool:
        earlier = self.earlier.stages if self.earlier is not None else ()
        record = next((one for one in earlier if one.name == stage.name), None)
        if record is None or record.key != key or not record.succeeded:
            return False
        return are_as_written(self.run, stage, record.outputs)

    def _add(self, stage: Stage, key: str, status: Status, seconds: float, error: str | None) -> None:
        succeeded = status in ("done", "reused")
        files = {self._relative(path): record_of_file(path) for path in stage.outputs} if succeeded else {}
        outputs = {path: of.sha256 for path, of in files.items()}
        record = StageRecord(
            stage.kind, stage.subject, status, key, dict(stage.inputs), outputs, round(seconds, 3), error
        )
        self._record_files(files)
        self.record = replace(self.record, stages=(*self.record.stages, record))
        self.write()

    def _record_files(self, known: Mapping[str, FileRecord]) -> None:
        """Record what was written since the last look, and forget what is gone; `known` was just read."""
        found = stamps_below(self.run.root)
        recorded = {**self.record.files, **known}
        written = {path for path, stamp in found.items() if self.stamps.get(path) != stamp} - known.keys()
        files = {
            path: record_of_file(self.run.root / path) if path in written else recorded[path]
            for path in found
            if path in written or path in recorded
        }
        self.record, self.stamps = replace(self.record, files=files), found

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.run.root).as_posix()
