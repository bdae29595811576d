"""The images of a run: decoded, resized and divided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from calibration_data.settings import open_source, source_fingerprint, source_module
from foundation.progress import Observer
from foundation.settings import without_paths
from pipeline.configuration import Configuration
from pipeline.run.ledger import Ledger, Stage

if TYPE_CHECKING:
    from calibration_data.prepared import PreparedData


def prepare_images(configuration: Configuration, ledger: Ledger, observer: Observer) -> PreparedData:
    """Decode, resize and split the images."""
    from calibration_data.preparation import prepare
    from calibration_data.prepared_folder import FILES, read_prepared

    folder = ledger.run.data
    stage = Stage(
        kind="data",
        inputs={"source": source_fingerprint(configuration.data)},
        settings=_what_changes_the_images(configuration),
        modules=("calibration_data.preparation", source_module(configuration.data)),
        outputs=tuple(folder / name for name in FILES),
    )
    with observer.stage("images") as advance:
        data = ledger.perform(
            stage,
            lambda: prepare(open_source(configuration.data), configuration.data, folder, advance),
            lambda: read_prepared(folder),
        )
    ledger.describe_data(data)
    if data.skipped:
        observer.say(f"{len(data.skipped)} images could not be read and were skipped; the report lists them.")
    return data


def _what_changes_the_images(configuration: Configuration) -> Mapping[str, object]:
    # Not where the images lie (their content is in the fingerprint), and not how many processes decode them.
    settings = configuration.data
    values = without_paths(settings.model_dump(exclude={"workers"}))
    return {**values, "source": without_paths(settings.source.model_dump())}
