"""The stage that asks a file about the test images, whole or in shards that workers answered before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.artifacts import OnnxModel
from foundation.measurements import Measurement, read_measurements, write_measurements
from foundation.progress import Progress
from pipeline.configuration import Configuration
from pipeline.run.deliveries import Performer, find_delivery, work_folder
from pipeline.run.ledger import stage_of_answers
from pipeline.run.stage import Stage

if TYPE_CHECKING:
    from calibration_data.prepared import PreparedData

SHARD_IMAGES = 8_192
"""Of more images each worker answers about so many: a minute's work where an image takes seven milliseconds."""


def measure_answers(
    configuration: Configuration,
    performer: Performer,
    data: PreparedData,
    fp32: OnnxModel,
    model: OnnxModel,
    progress: Progress,
) -> Sequence[Measurement]:
    """Answer the test images with a file and measure its size and its answers.

    Raises:
        StageError: a logit is not finite.
    """
    from stages.validate.accuracy import measure_accuracy, measure_size, predict_variant
    from stages.validate.answers import Predictions
    from stages.validate.shards import join_shards
    from stages.validate.subgroups import subgroups_of

    run, settings = performer.run, configuration.validation.accuracy
    is_baseline = model.variant == fp32.variant
    path = run.root / "validate" / "measured" / f"{model.variant}.json"
    predictions_path = run.predictions(model.variant)

    def compute() -> Sequence[Measurement]:
        parts = _delivered_shards(configuration, performer, data, model)
        if parts:
            predictions = join_shards(model.variant, parts, data.test.labels, predictions_path)
        else:
            predictions = predict_variant(model, data.test, settings, predictions_path, progress)
        fp32s = predictions if is_baseline else Predictions.read("fp32", run.predictions("fp32"))
        found = [
            *measure_size(model, fp32),
            *measure_accuracy(
                model.variant,
                predictions.logits,
                predictions.labels,
                data.classes,
                None if is_baseline else fp32s.logits,
                data.test.groups,
                subgroups_of(data.test),
                settings,
                present_only=configuration.model.train is None,
                unscored=frozenset(one.variant for one in (predictions, fp32s) if not one.scored),
            ),
        ]
        write_measurements(path, found)
        return found

    stage = stage_of_answers(
        "validate",
        performer,
        data,
        (fp32, model),
        {"accuracy": settings.model_dump(mode="json")},
        ("stages.validate.accuracy",),
        (path, predictions_path),
    )
    return performer.perform(stage, compute, partial(read_measurements, path))


def shards_of(images: int) -> int:
    """Return in how many shards workers answer; the same for any number of workers."""
    return -(-images // SHARD_IMAGES)


def answer_one_shard(
    configuration: Configuration, performer: Performer, data: PreparedData, model: OnnxModel, number: int
) -> None:
    """Have one shard of the test images answered, counted from 0; a file that asks about many at once has fewer.

    Raises:
        StageError: a logit is not finite.
    """
    from stages.validate.shards import answer_shard, cut_into_shards

    images, settings = len(data.test.labels), configuration.validation.accuracy
    shards = cut_into_shards(model.path, images, settings, shards_of(images))
    if number >= len(shards):
        return
    path = _shard_path(performer, model, number)
    pixels = performer.run.data / "test.images.npy"
    performer.perform(
        _shard_stage(configuration, performer, data, model, number),
        partial(answer_shard, model.path, pixels, shards[number], settings, path),
        lambda: None,
    )


def _delivered_shards(
    configuration: Configuration, performer: Performer, data: PreparedData, model: OnnxModel
) -> list[Path]:
    """Return every shard's answers where workers left all of them; none otherwise."""
    from stages.validate.shards import cut_into_shards

    images = len(data.test.labels)
    if shards_of(images) == 1:
        return []
    shards = cut_into_shards(model.path, images, configuration.validation.accuracy, shards_of(images))
    stages = [_shard_stage(configuration, performer, data, model, number) for number in range(len(shards))]
    if any(find_delivery(performer.run, stage, stage.key) is None for stage in stages):
        return []
    return [_shard_path(performer, model, number) for number in range(len(shards))]


def _shard_stage(
    configuration: Configuration, performer: Performer, data: PreparedData, model: OnnxModel, number: int
) -> Stage:
    return Stage(
        kind="shard",
        subject=f"{model.variant}-{number + 1}-of-{shards_of(len(data.test.labels))}",
        inputs={"model": model.sha256, "data": data.sha256},
        settings={
            "accuracy": configuration.validation.accuracy.model_dump(mode="json"),
            "processor": asdict(performer.record.environment.cpu),
        },
        modules=("stages.validate.shards",),
        outputs=(_shard_path(performer, model, number),),
    )


def _shard_path(performer: Performer, model: OnnxModel, number: int) -> Path:
    return work_folder(performer.run) / "shards" / f"{model.variant}-{number + 1}.npz"
