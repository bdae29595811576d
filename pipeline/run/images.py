"""The images of a run: decoded, resized and divided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from calibration_data.settings import open_source, source_fingerprint, source_module
from foundation.errors import UsageError
from foundation.progress import Observer
from foundation.settings import without_paths
from pipeline.configuration import Configuration
from pipeline.run.ledger import Ledger, Stage

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
    from calibration_data.summary import summary_lines

    folder = ledger.run.data
    training = configuration.model.train is not None
    dataset = open_source(configuration.data)
    classes = _classes_of(given, configuration, dataset, observer)
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
    ledger.describe_data(data)
    for line in summary_lines(data, named=True):
        observer.say(line)
    return data


def _classes_of(
    given: GivenModel | None, configuration: Configuration, dataset: Dataset, observer: Observer
) -> tuple[str, ...] | None:
    """Return the names of a given model's outputs, which the images' classes are looked up in; None without a model.

    Raises:
        UsageError: nobody named the outputs, and there are not as many as classes.
    """
    if given is None or given.classes is not None:
        return given.classes if given else None
    if given.answers.classes != len(dataset.classes):
        raise UsageError(
            f"{_name_of(configuration)}: expected names of its {given.answers.classes} outputs, since the images "
            f"have {len(dataset.classes)} classes; found none. Give a file with one name a line, in the order of the "
            "outputs (`model.onnx.classes`, --labels)."
        )
    observer.say(
        "Nobody named the model's outputs: they are taken to be the images' classes in alphabetical order "
        f"({', '.join(dataset.classes[:5])}{', …' if len(dataset.classes) > 5 else ''})."
    )
    return dataset.classes


def _name_of(configuration: Configuration) -> str:
    return str(configuration.model.onnx.path if configuration.model.onnx else "the model")


def _what_changes_the_images(configuration: Configuration) -> Mapping[str, object]:
    # Not where the images lie (their content is in the fingerprint), and not how many processes decode them.
    settings = configuration.data
    values = without_paths(settings.model_dump(exclude={"workers"}))
    return {**values, "source": without_paths(settings.source.model_dump())}
