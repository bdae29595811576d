"""The stages that measure every file: accuracy, saliency by occlusion and by its twin, and latency."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pipeline.artifacts import Measurement, OnnxModel, read_json, sha256_of_file, write_json
from pipeline.cache import Ledger, Stage
from pipeline.config import Configuration
from pipeline.errors import NotMeasuredError, StageError, UsageError
from pipeline.progress import Advance, Observer
from stages.validate import METRICS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from calibration_data.prepared import PreparedData, Task
    from stages.validate.saliency import SaliencySettings

    Truth = tuple[NDArray[np.bool_], NDArray[np.bool_], tuple[str, ...]]


def validate_models(
    configuration: Configuration,
    ledger: Ledger,
    data: PreparedData,
    models: list[OnnxModel],
    observer: Observer,
) -> list[Measurement]:
    """Measure accuracy, saliency and latency of every file, and write it all; each file gets its saliency twin."""
    from stages.validate.latency import measure_latency
    from stages.validate.saliency import unmeasured_saliency

    measurements = []
    for model in models:
        try:
            with observer.stage(f"validate {model.variant}") as advance:
                measurements += _validate_one(configuration, ledger, data, models[0], model, advance)
                measurements += _explain_by_twin(configuration, ledger, data, models[0], model)
        except NotMeasuredError as error:
            observer.say(f"{model.variant}: its occlusion maps stand alone. {error}")
            measurements += unmeasured_saliency(model.variant, str(error), data.task, "gradient")
        except (StageError, UsageError) as error:
            observer.say(f"✗ {model.variant}: {error}")
            if model is models[0]:
                raise
    with observer.stage("latency") as advance:
        image = data.test.images[0]
        measurements += measure_latency(models, image, configuration.validation.latency, advance)
    measurements += _absent(configuration, ledger, data.task, measurements)
    write_json(ledger.run.measurements, [measurement.as_json() for measurement in measurements])
    return measurements


def _validate_one(
    configuration: Configuration,
    ledger: Ledger,
    data: PreparedData,
    fp32: OnnxModel,
    model: OnnxModel,
    advance: Advance,
) -> list[Measurement]:
    from stages.validate.accuracy import Predictions, measure_accuracy, measure_size, predict_variant
    from stages.validate.explained import explained_classes
    from stages.validate.saliency import Explanations, explain_variant, measure_saliency

    run, settings = ledger.run, configuration.validation
    is_baseline = model.variant == fp32.variant
    path = run.root / "validate" / "measured" / f"{model.variant}.json"
    predictions_path, saliency_path = run.predictions(model.variant), run.saliency(model.variant)

    def compute() -> list[Measurement]:
        predictions = predict_variant(model, data.test, settings.accuracy, predictions_path)
        reference = predictions if is_baseline else Predictions.read("fp32", run.predictions("fp32"))
        targets = explained_classes(reference.logits, data.test.mask_class, data.task)
        maps = explain_variant(model, data.test, targets, data.task, settings.saliency, saliency_path, advance)
        truth = _masks_of(data, maps.image_index)
        reference_maps = None if is_baseline else Explanations.read("fp32", run.saliency("fp32")).maps
        found = [
            measure_size(model),
            *measure_accuracy(
                model.variant,
                predictions.logits,
                predictions.labels,
                data.classes,
                None if is_baseline else reference.logits,
                data.test.groups,
                data.test.subgroups,
                settings.accuracy,
            ),
            *measure_saliency(
                model.variant, maps.maps, reference_maps, *truth, data.task, "occlusion", settings.saliency
            ),
        ]
        if is_baseline:
            found += _random_baseline(maps.maps, truth, data.task, "occlusion", settings.saliency)
        write_json(path, [measurement.as_json() for measurement in found])
        return found

    stage = Stage(
        name=f"validate/{model.variant}",
        inputs={"model": model.sha256, "fp32": fp32.sha256, "data": data.sha256},
        # Accuracy belongs to a file on a processor: another one may round or saturate otherwise.
        settings=settings.model_dump(mode="json", include={"accuracy", "saliency"})
        | {"processor": ledger.head["environment"]["cpu"]},
        source=("stages/validate", "calibration_data/preprocessing.py"),
        outputs=(path, predictions_path, saliency_path),
    )
    return ledger.perform(stage, compute, partial(_read_measured, path))


def _explain_by_twin(
    configuration: Configuration,
    ledger: Ledger,
    data: PreparedData,
    fp32: OnnxModel,
    model: OnnxModel,
) -> list[Measurement]:
    """Write the file's saliency twin and measure its gradient maps, on the images and classes explained by occlusion.

    Raises:
        NotMeasuredError: an operator of the file has no rule.
    """
    from stages.saliency_twin.twin_file import make_twin, twin_path
    from stages.validate.maps.gradients import gradient_maps_of_file
    from stages.validate.saliency import Explanations, measure_saliency

    run, settings = ledger.run, configuration.validation.saliency
    path = run.root / "validate" / "measured" / f"{model.variant}.gradients.json"
    explained = Explanations.read("fp32", run.saliency("fp32"))
    is_baseline = model.variant == fp32.variant

    def compute() -> list[Measurement]:
        truth = _masks_of(data, explained.image_index)
        try:
            twin = make_twin(model.path, None, None, None)
        except UsageError as error:
            raise NotMeasuredError(str(error)) from error
        maps = gradient_maps_of_file(twin, data.test.images[explained.image_index], explained.target)
        Explanations(
            model.variant, maps, explained.image_index, explained.target, run.gradients(model.variant)
        ).write()
        reference = None if is_baseline else Explanations.read("fp32", run.gradients("fp32")).maps
        found = measure_saliency(model.variant, maps, reference, *truth, data.task, "gradient", settings)
        if is_baseline:
            found += _random_baseline(maps, truth, data.task, "gradient", settings)
        write_json(path, [measurement.as_json() for measurement in found])
        return found

    stage = Stage(
        name=f"twin/{model.variant}",
        inputs={
            "model": model.sha256,
            "fp32": fp32.sha256,
            "data": data.sha256,
            "explained": sha256_of_file(run.saliency("fp32")),
        },
        settings={
            "saliency": settings.model_dump(mode="json"),
            "processor": ledger.head["environment"]["cpu"],
        },
        source=("stages/saliency_twin", "stages/validate", "calibration_data/preprocessing.py"),
        outputs=(path, twin_path(model.path), run.gradients(model.variant)),
    )
    return ledger.perform(stage, compute, partial(_read_measured, path))


def _masks_of(data: PreparedData, chosen: NDArray[np.int64]) -> Truth:
    """Return masks, whether there is one, and groups of the chosen test images."""
    test = data.test
    return test.masks[chosen], test.has_mask[chosen], tuple(test.groups[index] for index in chosen)


def _random_baseline(
    reference: NDArray[np.float32],
    truth: Truth,
    task: Task,
    method: Literal["occlusion", "gradient"],
    settings: SaliencySettings,
) -> list[Measurement]:
    """Return what a map that knows nothing scores, at the resolution of the method."""
    from stages.validate.maps.baselines import random_maps
    from stages.validate.saliency import RANDOM_MAP, measure_saliency

    count, height, width = reference.shape
    patch, stride = (settings.patch(height), settings.stride(height)) if method == "occlusion" else (1, 1)
    maps = random_maps(settings.seed, (count, height, width), patch, stride)
    return measure_saliency(RANDOM_MAP, maps, reference, *truth, task, method, settings)


def _absent(
    configuration: Configuration, ledger: Ledger, task: Task, measurements: list[Measurement]
) -> list[Measurement]:
    """Return an empty measurement, with the reason, for every number that a variant which failed does not have."""
    measured = {(measurement.variant, measurement.metric) for measurement in measurements}
    reasons = {record.name.partition("/")[2]: record.error for record in ledger.records if record.error}
    return [
        Measurement(metric, None, row.unit, variant, settings={"reason": reasons.get(variant, "unknown")})
        for variant in configuration.variants
        for metric, row in METRICS.items()
        if "/" not in metric and task in row.definitions and (variant, metric) not in measured
    ]


def _read_measured(path: Path) -> list[Measurement]:
    return [Measurement.from_json(record) for record in read_json(path)]
