"""The stage that asks a file about images that were made worse."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.artifacts import OnnxModel
from foundation.measurements import Measurement, read_measurements, write_measurements
from foundation.progress import Progress
from pipeline.configuration import Configuration
from pipeline.run.deliveries import Performer
from pipeline.run.ledger import stage_of_answers

if TYPE_CHECKING:
    from calibration_data.prepared import PreparedData


def measure_under_change(
    configuration: Configuration,
    performer: Performer,
    data: PreparedData,
    fp32: OnnxModel,
    model: OnnxModel,
    progress: Progress,
) -> Sequence[Measurement]:
    """Return accuracy and agreement of a file on worse images; nothing where unasked. fp32 comes first."""
    settings = configuration.validation.robustness
    if settings is None:
        return ()
    run, is_baseline = performer.run, model.variant == fp32.variant
    path = run.root / "validate" / "measured" / "robustness" / f"{model.variant}.json"
    answers = run.answers_under_change(model.variant)
    stage = stage_of_answers(
        "robustness",
        performer,
        data,
        (fp32, model),
        {
            "robustness": settings.model_dump(mode="json"),
            "accuracy": configuration.validation.accuracy.model_dump(mode="json"),
        },
        ("stages.validate.robustness", "onnx_files.sessions"),
        (path, answers),
    )
    reference = None if is_baseline else run.answers_under_change("fp32")
    compute = partial(_measure, configuration, data, model, (path, answers), reference, progress)
    return performer.perform(stage, compute, partial(read_measurements, path))


def _measure(
    configuration: Configuration,
    data: PreparedData,
    model: OnnxModel,
    outputs: tuple[Path, Path],
    reference: Path | None,
    progress: Progress,
) -> Sequence[Measurement]:
    import numpy as np

    from foundation.arrays import read_arrays, write_arrays
    from onnx_files.sessions import open_session, predict
    from stages.validate.answers import Answers, Predictions
    from stages.validate.explained import images_to_explain
    from stages.validate.robustness import changed_images, changes, measure_robustness

    settings, accuracy = configuration.validation.robustness, configuration.validation.accuracy
    assert settings is not None
    chosen = images_to_explain(data.test, settings.images, settings.seed)
    images = np.asarray(data.test.images[chosen])
    session = open_session(model.path, "cpu", accuracy.threads)
    logits = []
    for place, (_, kind, strength) in enumerate(changes()):
        worse = changed_images(images, kind, strength, settings.seed)
        logits.append(predict(session, worse, accuracy.batch_size))
        progress(place + 1, len(changes()))
    path, answers_path = outputs
    write_arrays(answers_path, {"logits": np.stack(logits)})
    own = Predictions(model.variant, logits[0], data.test.labels[chosen], answers_path)
    answers = Answers.of(own, data.classes, [data.test.groups[index] for index in chosen])
    fp32 = None if reference is None else list(read_arrays(reference, ("logits",))[0])
    found = measure_robustness(answers, logits, fp32)
    write_measurements(path, found)
    return found
