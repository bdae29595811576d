"""The record of a run's stages, and reuse of what is already there.

A stage's key is a sha256 over its name, its inputs' hashes, its settings, its source code and the versions of the
libraries that compute. A stage whose record has the same key, ended well and left outputs with the recorded hashes is
not computed again. Failures are recorded, never reused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from foundation.artifacts import OnnxModel
from foundation.errors import NotMeasuredError, StageError, UsageError
from foundation.files import JSON, read_json, sha256_of_file, sha256_of_json, write_json
from foundation.record import StageRecord
from foundation.run_folder import RunFolder
from foundation.versions import versions_of
from pipeline.run.sources import sources_sha256

FORMAT_VERSION = 1
_COMPUTING_PACKAGES = (
    "torch", "onnx", "onnxruntime", "onnxscript", "onnx-ir", "numpy", "scipy", "scikit-learn", "pillow", "safetensors"
)  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True)
class Stage:
    """What identifies a stage's result.

    Attributes:
        name: unique in the run.
        inputs: name → sha256 of everything that comes from earlier stages or from outside.
        settings: what the configuration says about it.
        modules: of ours that compute it; what they import belongs to them.
        outputs: the files it leaves.
    """

    name: str
    inputs: Mapping[str, str]
    settings: JSON
    modules: tuple[str, ...]
    outputs: tuple[Path, ...]

    @property
    def key(self) -> str:
        """The stage's identity."""
        return sha256_of_json(
            {
                "name": self.name,
                "inputs": dict(self.inputs),
                "settings": self.settings,
                "source": sources_sha256(*self.modules),
                "versions": versions_of(_COMPUTING_PACKAGES),
            }
        )


@dataclass
class Ledger:
    """`run.json` while a run is under way: a head that describes the run, and one record per stage.

    Attributes:
        run: the run folder.
        head: everything in `run.json` but the stages.
        records: the stages of this run, in order.
    """

    run: RunFolder
    head: dict[str, JSON]
    records: list[StageRecord] = field(default_factory=list)
    _earlier: dict[str, StageRecord] = field(default_factory=dict)

    @classmethod
    def open(cls, run: RunFolder, head: dict[str, JSON]) -> Ledger:
        """Return the ledger of a run, with what an earlier run in the same folder recorded for reuse."""
        earlier: dict[str, StageRecord] = {}
        if run.record.exists():
            record = read_json(run.record)
            if not isinstance(record, dict) or record.get("format_version") != FORMAT_VERSION:
                raise UsageError(
                    f"{run.record}: expected the record of a run of format {FORMAT_VERSION}, found something else. "
                    "Choose another folder for the run."
                )
            try:
                earlier = {entry["name"]: StageRecord(**entry) for entry in record["stages"]}
            except (KeyError, TypeError) as error:
                raise UsageError(
                    f"{run.record}: expected a record per stage, found another shape ({error}). "
                    "Delete the file to compute everything again, or choose another folder for the run."
                ) from error
        return cls(run, head, [], earlier)

    @property
    def all_succeeded(self) -> bool:
        """Whether every stage so far has a result."""
        return all(record.status in ("done", "reused") for record in self.records)

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
        started = time.perf_counter()
        reusable = self._is_reusable(stage, key)
        try:
            result = read() if reusable else compute()
        except (StageError, UsageError) as error:
            if self.records:  # a run whose first stage refuses its input has not begun and leaves no record
                status = "not_measured" if isinstance(error, NotMeasuredError) else "failed"
                self._add(stage, key, status, time.perf_counter() - started, str(error))
            raise
        except OSError:
            raise  # the disk or the system refused: no fault of the stage, and nothing else would fare better
        except Exception as error:
            # Whatever a library raised: this stage has no result, and the others may still have theirs.
            message = f"{stage.name}: an unexpected {type(error).__name__}: {error}. `edgeproof --debug` shows where."
            self._add(stage, key, "failed", time.perf_counter() - started, message)
            raise StageError(message) from error
        self._add(stage, key, "reused" if reusable else "done", time.perf_counter() - started, None)
        return result

    def add_variant(self, model: OnnxModel) -> None:
        """Record a compiled file."""
        self.head["variants"] = [
            *self.head["variants"],
            {
                "variant": model.variant,
                "method": model.method,
                "path": self._relative(model.path),
                "sha256": model.sha256,
                "size_bytes": model.size_bytes,
                "parent_sha256": model.parent_sha256,
                "settings": dict(model.settings),
                "notes": model.notes.model_dump(mode="json"),
            },
        ]
        self.write()

    def write(self) -> None:
        """Write `run.json`; stages that an interrupted run has not reached yet keep their earlier record."""
        seen = {record.name for record in self.records}
        later = [record for name, record in self._earlier.items() if name not in seen]
        stages = [asdict(record) for record in (*self.records, *(() if self.is_finished else later))]
        write_json(self.run.record, {"format_version": FORMAT_VERSION, **self.head, "stages": stages})

    @property
    def is_finished(self) -> bool:
        """Whether the run has come to its exit code."""
        return self.head.get("exit_code") is not None

    def _is_reusable(self, stage: Stage, key: str) -> bool:
        record = self._earlier.get(stage.name)
        if record is None or record.key != key or record.status not in ("done", "reused"):
            return False
        return bool(stage.outputs) and all(
            path.is_file() and record.outputs.get(self._relative(path)) == sha256_of_file(path)
            for path in stage.outputs
        )

    def _add(self, stage: Stage, key: str, status: str, seconds: float, error: str | None) -> None:
        succeeded = status in ("done", "reused")
        outputs = {self._relative(path): sha256_of_file(path) for path in stage.outputs} if succeeded else {}
        self.records.append(
            StageRecord(stage.name, status, key, dict(stage.inputs), outputs, round(seconds, 3), error)  # type: ignore[arg-type]
        )
        self.write()

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.run.root).as_posix()
