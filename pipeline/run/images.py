"""The images of a run: decoded, resized and divided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from calibration_data.settings import open_source, source_fingerprint, source_module
from foundation.errors import UsageError
from foundation.progress import Observer
from foundation.settings import without_paths
from pipeline.configuration import Configuration
from pipeline.run.ledger import Ledger
from pipeline.run.stage import Stage

if TYPE_CHECKING:
    from calibration_data.dataset import Dataset
    from calibration_data.prepared import PreparedData
    from stages.given.float_file import GivenModel


def prepare_images(
    configuration: Configuration, ledger: Ledger, given: GivenModel | None, observer: Observer
) -> PreparedData:
    """Decode, resize and split the images; their classes are those of a given model, where there is one.

    Raises:
        UsageError: the images cannot be used, or are none of the given model's classes.
    """
    from calibration_data.preparation import prepare
    from calibration_data.prepared_folder import FILES, read_prepared
    from calibration_data.split_checks import official_gaps
    from calibration_data.summary import summary_lines

    folder = ledger.run.data
    training = configuration.model.train is not None
    dataset = open_source(configuration.data)
    classes = None
    if given is not None:
        classes = names_of_outputs(configuration, given.answers.classes, given.classes, dataset)
    if given is not None and given.classes is None:
        observer.say(
            "Nobody named the model's outputs: they are taken to be the images' classes in alphabetical order "
            f"({', '.join(dataset.classes[:5])}{', …' if len(dataset.classes) > 5 else ''})."
        )
    if not training and dataset.task == "multi_class":
        for sentence in official_gaps(dataset.records, dataset.classes):
            observer.say(f"! {sentence}")
    stage = Stage(
        kind="data",
        inputs={"source": source_fingerprint(configuration.data)},
        settings={**_what_changes_the_images(configuration), "training": training, "classes": classes},
        modules=("calibration_data.preparation", source_module(configuration.data)),
        outputs=tuple(folder / name for name in FILES),
    )
    with observer.stage("images") as progress:
        data = ledger.perform(
            stage,
            lambda: prepare(dataset, configuration.data, folder, progress, training=training, classes=classes),
            lambda: read_prepared(folder),
        )
    _refuse_unknown_operating_classes(configuration, data.classes)
    ledger.describe_data(data)
    for line in summary_lines(data, named=True):
        observer.say(line)
    return data


def names_of_outputs(
    configuration: Configuration, outputs: int, told: tuple[str, ...] | None, dataset: Dataset
) -> tuple[str, ...]:
    """Return the names of a given model's outputs, in which the images' classes are looked up.

    Args:
        configuration: of the run.
        outputs: how many classes the model answers.
        told: their names, where anybody told any.
        dataset: the opened images; where nobody did, the names are those of its classes.

    Raises:
        UsageError: nobody named the outputs, and there are not as many as classes; or a class of the images is none
            of the model's.
    """
    from calibration_data.preparation import refuse_unknown_classes

    if told is not None:
        refuse_unknown_classes(dataset, told)
        return told
    if outputs != len(dataset.classes):
        raise UsageError(
            f"{configuration.model.onnx.path if configuration.model.onnx else 'the model'}: expected names of its "
            f"{outputs} outputs, since the images have {len(dataset.classes)} classes; found none. Give a file with "
            "one name a line, in the order of the outputs (`model.onnx.classes`, --labels)."
        )
    return dataset.classes


def _refuse_unknown_operating_classes(configuration: Configuration, classes: Sequence[str]) -> None:
    settings = configuration.validation.operating_points
    unknown = [name for name in (settings.classes or ()) if name not in classes] if settings else []
    if unknown:
        raise UsageError(
            f"validation.operating_points.classes: expected names of {', '.join(classes[:10])}, found "
            f"{', '.join(map(repr, unknown))}. Write them as the data does, or leave `classes` out for all."
        )


def _what_changes_the_images(configuration: Configuration) -> Mapping[str, object]:
    # Not where the images lie (their content is in the fingerprint), and not how many processes decode them.
    settings = configuration.data
    values = without_paths(settings.model_dump(exclude={"workers"}))
    return {**values, "source": without_paths(settings.source.model_dump())}
