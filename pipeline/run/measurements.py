"""The stages that measure every file: accuracy, saliency and latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.answer_documents import write_answers
from foundation.artifacts import OnnxModel
from foundation.errors import DiskError, StageError, UsageError
from foundation.files import write_json
from foundation.host_lock import alone_on_host, computing
from foundation.image_by_image import ImageByImage, write_image_by_image
from foundation.measurements import Measurement, write_measurements
from foundation.metrics import METRICS
from foundation.progress import Observer
from foundation.versions import commit_of
from pipeline.configuration import Configuration
from pipeline.run.answers import measure_answers
from pipeline.run.ledger import Ledger
from pipeline.run.operating import measure_operating_points
from pipeline.run.robustness import measure_under_change
from pipeline.run.saliency import Explaining, explain_model

if TYPE_CHECKING:
    from calibration_data.prepared import PreparedData, Task


def validate_models(
    configuration: Configuration,
    ledger: Ledger,
    data: PreparedData,
    models: list[OnnxModel],
    observer: Observer,
    quiet_wait_minutes: float = 0.0,
) -> list[Measurement]:
    """Measure accuracy, saliency and latency of every file, and write it all; each file gets its saliency twin.

    Args:
        configuration: of the run.
        ledger: of the run.
        data: the images.
        models: the files, fp32 first.
        observer: who watches.
        quiet_wait_minutes: at most so long, the times wait until other processes leave the machine alone.
    """
    from stages.validate.answers import Predictions
    from stages.validate.suspicion import suspicions

    measurements: list[Measurement] = []
    fp32, without_reference = models[0], dict[str, str]()
    for model in models:
        try:
            with observer.stage(f"validate {model.variant}") as progress:
                answers = measure_answers(configuration, ledger, data, fp32, model, progress)
                measurements += answers
                measurements += measure_operating_points(configuration, ledger, data, fp32, model)
                if model is fp32:
                    predictions = Predictions.read("fp32", ledger.run.predictions("fp32"))
                    for doubt in suspicions(predictions, answers, data.classes):
                        observer.say(f"! fp32: {doubt}")
                measurements += measure_under_change(configuration, ledger, data, fp32, model, progress)
                task = Explaining(configuration.validation.saliency, ledger, data, fp32, model, progress)
                measurements += explain_model(task, without_reference, observer)
        except DiskError:
            raise
        except (StageError, UsageError) as error:
            observer.say(f"✗ {model.variant}: {error}")
            if model is fp32:
                raise
    with alone_on_host(observer.say):
        measurements += _timed(configuration, ledger, data, models, observer, quiet_wait_minutes)
        _place(configuration, ledger, data, models, observer)
    with computing():
        measurements += _absent(configuration, ledger, data.task, measurements)
        write_measurements(ledger.run.measurements, measurements)
        _write_image_by_image(configuration, ledger, data, measurements)
    ledger.write()  # what was written last belongs to no stage
    return measurements


def _timed(
    configuration: Configuration,
    ledger: Ledger,
    data: PreparedData,
    models: list[OnnxModel],
    observer: Observer,
    quiet_wait_minutes: float,
) -> list[Measurement]:
    """Time every file and write down how the machine was before and after."""
    from stages.validate.latency import measure_latency
    from stages.validate.machine_state import Watched, machine_state, wait_until_quiet

    with observer.stage("latency") as progress:
        wait_until_quiet(60 * quiet_wait_minutes, observer.say)
        before = machine_state()
        found = measure_latency(models, data.test.images[0], configuration.validation.latency, progress)
        watched = Watched(before, machine_state())
    when = {"ended_utc": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit_of(Path.cwd())}
    write_json(ledger.run.machine, {**watched.as_json(), **when})
    if watched.warning:
        observer.say(f"! latency: {watched.warning}")
    return watched.marked(found)


def _place(
    configuration: Configuration, ledger: Ledger, data: PreparedData, models: list[OnnxModel], observer: Observer
) -> None:
    """Write where every file's nodes run on each provider that is timed, and what that costs."""
    from foundation.placement import write_placements
    from onnx_files.sessions import why_unavailable
    from stages.validate.placement import measure_placement

    target = ledger.record.environment.cpu.target
    providers = [name for name in configuration.validation.latency.providers if why_unavailable(name) is None]
    with observer.stage("placement") as progress:
        found = []
        for provider in providers:
            for model in models:
                found.append(measure_placement(model.variant, model.path, provider, data.test.images[:1], target))
                progress(len(found), len(providers) * len(models))
    write_placements(ledger.run.placement, found)


def _write_image_by_image(
    configuration: Configuration, ledger: Ledger, data: PreparedData, measurements: Sequence[Measurement]
) -> None:
    """Write which answers changed, all of them in the ledger, how sure they were, and whose maps are shown.

    Those are the maps by the first method that fp32 has maps by.
    """
    from foundation.explanations import Explanations
    from stages.validate.answers import Answers, Predictions
    from stages.validate.answers_in_detail import answers_in_detail
    from stages.validate.calibration import reliability_document
    from stages.validate.changed_answers import changed_answers
    from stages.validate.changes_ledger import changes_ledger
    from stages.validate.shown_maps import maps_to_show

    def with_result(kind: str) -> tuple[str, ...]:
        stages = (stage for stage in ledger.record.stages if stage.kind == kind and stage.succeeded)
        return tuple(stage.subject for stage in stages if stage.subject is not None)

    run = ledger.run
    answers = {name: Predictions.read(name, run.predictions(name)) for name in with_result("validate")}
    fp32 = answers.pop("fp32")
    changes_ledger(fp32, answers, data).write(run.changes_table, run.changes)
    of_all = [Answers.of(one, data.classes, data.test.groups) for one in (fp32, *answers.values())]
    write_json(run.reliability, reliability_document(of_all))
    rarest = configuration.validation.accuracy.min_positives
    counted = [replace(one, min_positives=rarest) for one in of_all]
    write_answers(run.answers, answers_in_detail(counted, measurements))
    shown = None
    for method in configuration.validation.saliency.methods:
        maps = {name: Explanations.read(name, run.maps(name, method)) for name in with_result(method)}
        if "fp32" in maps:
            shown = maps_to_show(method, maps.pop("fp32"), maps)
            break
    write_image_by_image(run.image_by_image, ImageByImage(changed_answers(fp32, answers), shown))


def _absent(
    configuration: Configuration, ledger: Ledger, task: Task, measurements: list[Measurement]
) -> list[Measurement]:
    """Return an empty measurement, with the reason, for every number that a variant which failed does not have."""
    # Places have their own files, and tell there what they lack.
    unasked = ("place", *(("changed",) if configuration.validation.robustness is None else ()))
    measured = {(measurement.variant, measurement.metric) for measurement in measurements}
    reasons = {stage.subject: stage.error for stage in ledger.record.stages if stage.error}
    return [
        Measurement(metric, None, row.unit, variant, remarks={"reason": reasons.get(variant, "unknown")})
        for variant in configuration.variants
        for metric, row in METRICS.items()
        if "/" not in metric
        and row.inputs not in unasked
        and task in row.definitions
        and (variant, metric) not in measured
    ]
