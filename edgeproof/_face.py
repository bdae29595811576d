"""What the face does: each function a few lines over the rooms that do the work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import UsageError
from foundation.measurements import Measurement
from foundation.places import measured_everywhere
from foundation.record import RunRecord, StageRecord, Verdict, read_record
from foundation.run_files import refuse_changed
from foundation.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas

    from pipeline.custody.check import CheckedRun

PathLike = str | os.PathLike[str]


@dataclass(frozen=True)
class OpenedRun:
    """A run folder, read.

    Attributes:
        folder: where it lies.
        record: everything that `run.json` says.
        measurements: every number, the absent ones with their reason.
    """

    folder: Path
    record: RunRecord
    measurements: tuple[Measurement, ...]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What the gates say, each with the measurement that it judged."""
        return self.record.verdicts

    @property
    def stages(self) -> tuple[StageRecord, ...]:
        """How each stage went."""
        return self.record.stages

    @property
    def exit_code(self) -> int | None:
        """0 to 3 as on the command line; None where the run did not end."""
        return None if self.record.exit_code is None else int(self.record.exit_code)

    @property
    def files(self) -> dict[str, Path]:
        """The ONNX file of each variant that was made."""
        return {variant.variant: self.folder / variant.path for variant in self.record.variants}

    @property
    def report(self) -> Path:
        """The report's `index.html`."""
        return RunFolder(self.folder).report / "index.html"

    def frame(self) -> pandas.DataFrame:
        """Return the measurements as a pandas frame, one row each, an absence with its reason.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise UsageError("expected pandas, found none. Install it with `pip install pandas`.") from error
        rows = [
            {
                "metric": one.metric,
                "variant": one.variant,
                "value": one.value,
                "unit": one.unit,
                "n": one.n,
                "low": one.ci95[0] if one.ci95 else None,
                "high": one.ci95[1] if one.ci95 else None,
                **{name: getattr(one.where, name) for name in one.where.__dataclass_fields__},
                "reason": one.reason,
            }
            for one in self.measurements
        ]
        return pandas.DataFrame(rows)


def open_run(path: PathLike) -> OpenedRun:
    """Read a run folder.

    Args:
        path: the folder, as `edgeproof run` made it.

    Raises:
        UsageError: it holds no record of a run, or a damaged one; or the measurements, or a
            compiled file, are not those that were recorded.
    """
    run = RunFolder(Path(path))
    record = read_record(run)
    places = (path for path in record.files if path.startswith("validate/places/"))
    read = {"validate/measurements.json", *places, *(variant.path for variant in record.variants)}
    refuse_changed(run, record, besides=record.files.keys() - read)
    return OpenedRun(run.root, record, measured_everywhere(run, record))


def check(path: PathLike, public_key: PathLike | None = None) -> CheckedRun:
    """Hold every file of a run against its record, as `edgeproof check` does.

    Args:
        path: the run folder.
        public_key: PEM file of the key that the record is to be signed with; None where that does not matter.

    Returns:
        Each file with its state; `bad` has those that are not as recorded, `exit_code` is 0 where there are none.

    Raises:
        UsageError: it holds no record of a run, or one that cannot be parsed, or the key is none.
    """
    from pipeline.custody.check import check_run

    return check_run(RunFolder(Path(path)), Path(public_key) if public_key else None)


def run(configuration: PathLike, folder: PathLike | None = None, quiet: bool = True) -> OpenedRun:
    """Do everything that a configuration asks for, as `edgeproof run` does, and return the run.

    Args:
        configuration: a YAML file.
        folder: of the run; None for `runs/NAME` here.
        quiet: whether nothing is shown on stderr.

    Raises:
        UsageError: the configuration or an input is wrong.
        StageError: there is nothing to measure.
    """
    from pipeline.configuration_file import read_configuration
    from pipeline.console import observer_of
    from pipeline.flow import compile_and_validate

    read = read_configuration(Path(configuration))
    outcome = compile_and_validate(
        read, RunFolder(Path(folder) if folder else Path("runs") / read.name), observer_of(quiet)
    )
    return open_run(outcome.run.root)


def quantize(
    model: PathLike,
    images: PathLike | None = None,
    method: str = "auto",
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    calibration: str | None = None,
    recovery: str | None = None,
    limit: int | None = None,
    output: PathLike | None = None,
    seed: int = 0,
    quiet: bool = True,
) -> Path:
    """Compile one ONNX file, as `edgeproof quantize MODEL` does, and return the file that was written.

    Args:
        model: a classifier in ONNX.
        images: a folder of images without labels, for methods that calibrate or are chosen by measuring.
        method: auto, the best of static, dynamic and weight-only as measured here; or a row of the table of compilers
            that starts from a float file.
        mean: of the input's channels, of pixels scaled to 0…1; None where the file's metadata say it.
        std: likewise.
        calibration: how ranges are chosen, of a method that chooses any.
        recovery: none, bias or rounding: steps against lost answers, of static and auto.
        limit: at most so many images to calibrate on.
        output: the file to write; None for `MODEL.METHOD.onnx` beside the model.
        seed: of the choice of images.
        quiet: whether nothing is shown on stderr.

    Raises:
        UsageError: something is wrong with the model, the images or the options.
        StageError: the method failed.
    """
    from pipeline.console import observer_of
    from pipeline.one_file.compile_file import compile_file
    from pipeline.one_file.options import CompileRequest

    request = CompileRequest(
        Path(model),
        None if images is None else Path(images),
        method,
        calibration,
        recovery,
        limit,
        mean=_listed(mean),
        std=_listed(std),
        output=None if output is None else Path(output),
        seed=seed,
    )
    return compile_file(request, observer_of(quiet)).compiled.path


def _listed(values: Sequence[float] | None) -> str | None:
    return None if values is None else ",".join(map(str, values))


def twin(model: PathLike, output: PathLike | None = None) -> Path:
    """Write the saliency twin of an ONNX classifier, and return its path.

    Args:
        model: the classifier.
        output: the file to write; None for `MODEL.saliency.onnx` beside it.

    Raises:
        UsageError: no such model, or an operator without a rule for its gradient.
    """
    from stages.saliency_twin.twin_file import make_twin

    return make_twin(Path(model), Path(output) if output else None, None, None)
