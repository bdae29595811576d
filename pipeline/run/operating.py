"""The stages that choose the operating points and hold every file against them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.artifacts import OnnxModel
from foundation.measurements import Measurement, read_measurements, write_measurements
from pipeline.configuration import Configuration
from pipeline.run.deliveries import Performer
from pipeline.run.ledger import stage_of_answers

if TYPE_CHECKING:
    from calibration_data.prepared import PreparedData
    from foundation.run_folder import RunFolder
    from stages.validate.accuracy import AccuracySettings
    from stages.validate.operating_points import OperatingPointSettings


def measure_operating_points(
    configuration: Configuration, performer: Performer, data: PreparedData, fp32: OnnxModel, model: OnnxModel
) -> Sequence[Measurement]:
    """Return what a file is worth at the thresholds; of fp32, which comes first, choose them; nothing where unasked.

    Its answers to the test images have been written.
    """
    settings, accuracy = configuration.validation.operating_points, configuration.validation.accuracy
    if settings is None:
        return ()
    run, is_baseline = performer.run, model.variant == fp32.variant
    path = run.root / "validate" / "measured" / "operating" / f"{model.variant}.json"
    predictions = run.validation_predictions(model.variant)
    stage = stage_of_answers(
        "operating",
        performer,
        data,
        (fp32, model),
        {"operating_points": settings.model_dump(mode="json"), "accuracy": accuracy.model_dump(mode="json")},
        ("stages.validate.at_threshold", "stages.validate.accuracy"),
        (path, predictions, *((run.operating_points,) if is_baseline else ())),
    )
    asked = _Asked(run, data, fp32, model, settings, accuracy)
    return performer.perform(stage, partial(_measure, asked, path), partial(read_measurements, path))


@dataclass(frozen=True)
class _Asked:
    """What one stage is about."""

    run: RunFolder
    data: PreparedData
    fp32: OnnxModel
    model: OnnxModel
    settings: OperatingPointSettings
    accuracy: AccuracySettings


def _measure(asked: _Asked, path: Path) -> Sequence[Measurement]:
    from stages.validate.accuracy import predict_variant
    from stages.validate.answers import Answers, Predictions
    from stages.validate.at_threshold import Bootstrap, measure_at_thresholds
    from stages.validate.operating_points import choose_all, read_operating_points

    run, data, variant = asked.run, asked.data, asked.model.variant
    validation = predict_variant(asked.model, data.validation, asked.accuracy, run.validation_predictions(variant))
    own, of_fp32 = (Predictions.read(name, run.predictions(name)) for name in (variant, "fp32"))
    on_validation = Answers.of(validation, data.classes, data.validation.groups)
    positive = {name: on_validation.positive(index) for index, name in enumerate(data.classes)}
    is_baseline = variant == asked.fp32.variant
    if is_baseline:
        scores, sha256 = on_validation.scores, asked.fp32.sha256
        choose_all(scores, positive, data.classes, asked.settings, sha256, data.sha256).write(run.operating_points)
    found = measure_at_thresholds(
        Answers.of(own, data.classes, data.test.groups, None if is_baseline else of_fp32),
        (on_validation.scores, positive),
        read_operating_points(run.operating_points),
        asked.settings,
        Bootstrap(asked.accuracy.resamples, asked.accuracy.seed),
        data.groups_known,
    )
    write_measurements(path, found)
    return found
