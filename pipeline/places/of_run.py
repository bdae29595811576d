"""What is asked of a run's files, or of one file and a folder of images."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import numpy as np

from calibration_data.prepared_folder import read_prepared
from foundation.errors import NotMeasuredError, StageError, UsageError
from foundation.files import sha256_of_file
from foundation.host_lock import alone_on_host, computing
from foundation.places import PlaceRecord, place_path, write_place
from foundation.progress import Observer
from foundation.record import RunRecord, read_record
from foundation.run_files import refuse_changed
from foundation.run_folder import RunFolder
from pipeline.configuration import Configuration
from pipeline.places.asked import AskedFile, Inquiry, ask_places
from pipeline.places.keep import keep_places
from pipeline.run.ledger import Ledger
from pipeline.run.stage import Stage
from reports import REPORT_FILES
from stages.validate.accuracy import AccuracySettings
from stages.validate.explained import explained_classes, images_to_explain
from stages.validate.places import PLACES
from stages.validate.places.measure import AskedImages
from stages.validate.places.settings import PlacesSettings


def known_places(text: str) -> tuple[str, ...]:
    """Return the places of a list with commas.

    Raises:
        UsageError: one is not known, or there is none.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    unknown = [name for name in names if name not in PLACES]
    if unknown or not names:
        raise UsageError(
            f"--on: expected some of {', '.join(PLACES)}, with commas between, found "
            f"{repr(unknown[0]) if unknown else 'nothing'}."
        )
    return names


def verify_run(
    run: RunFolder, settings: PlacesSettings, variants: tuple[str, ...], observer: Observer
) -> tuple[RunRecord, tuple[PlaceRecord, ...]]:
    """Ask a run's files at places and make what they answer part of the run.

    Args:
        run: the folder of a run that was validated.
        settings: where, and about how many images.
        variants: the files to ask; none for all.
        observer: who watches.

    Returns:
        The run's record with its new verdicts, and what was found at each place.

    Raises:
        UsageError: the folder is no run that was validated, a variant is not there, or a file was changed.
        StageError: a file has no answers here.
    """
    record = read_record(run)
    own = {(run.report / name).relative_to(run.root).as_posix() for name in REPORT_FILES}
    refuse_changed(run, record, besides=own)
    with _alone_where_timed(settings.at, observer):
        found = ask_places(inquiry_of(run, record, settings, variants), settings.at, observer)
    return keep_places(run, found), found


def _alone_where_timed(names: Sequence[str], observer: Observer) -> AbstractContextManager[None]:
    """Return the lock on this host under which places are asked; a run's own stages hold it by themselves."""
    takes_times = any(PLACES[name].kind == "real" for name in names)
    return alone_on_host(observer.say) if takes_times else computing(observer.say)


def ask_configured_places(configuration: Configuration, ledger: Ledger, observer: Observer) -> None:
    """Ask a run's files at the places of its configuration, as stages of it: a place that is missing is not measured.

    What a place answered about the same files and images is kept.
    """
    from functools import partial

    settings, run = configuration.validation.places, ledger.run
    for name in settings.at:
        asked = settings.model_copy(update={"at": (name,)})
        inquiry = inquiry_of(run, ledger.record, asked, ())
        stage = Stage(
            kind="place",
            subject=name,
            inputs={file.variant: file.sha256 for file in inquiry.files} | {"data": str(inquiry.data_sha256)},
            settings=asked.model_dump(mode="json"),
            modules=("pipeline.places.asked",),
            outputs=(place_path(run, name),),
            takes_times=True,
        )
        with suppress(StageError):  # the ledger has it
            ledger.perform(
                stage, partial(_ask_as_stage, run, inquiry, name, observer), partial(place_path, run, name)
            )


def _ask_as_stage(run: RunFolder, inquiry: Inquiry, name: str, observer: Observer) -> Path:
    (found,) = ask_places(inquiry, (name,), observer)
    path = write_place(run, found)
    if found.reason is not None:
        raise NotMeasuredError(found.reason)
    return path


def inquiry_of(run: RunFolder, record: RunRecord, settings: PlacesSettings, variants: tuple[str, ...]) -> Inquiry:
    """Return what a run's files are asked: test images spread over the classes, the class that fp32 explains.

    Raises:
        UsageError: the run holds no images or no answers of fp32, or no such variant.
    """
    from stages.saliency_twin.twin_file import twin_path
    from stages.validate.answers import Predictions

    if not (run.data / "manifest.json").is_file() or not run.predictions("fp32").is_file():
        raise UsageError(
            f"{run.root}: expected a run that was validated, with its images and fp32's answers, found neither. Run "
            "`edgeproof run` first."
        )
    known = {one.variant: one for one in record.variants}
    unknown = [name for name in variants if name not in known]
    if unknown:
        raise UsageError(f"--variant: expected some of {', '.join(known)}, found {unknown[0]!r}.")
    chosen = [one for name, one in known.items() if not variants or name in variants]
    data = read_prepared(run.data)
    index = images_to_explain(data.test, settings.images, 0)
    # Those that are explained come first, and are spread over the classes as well.
    first = images_to_explain(data.test, min(settings.maps, len(index)), 0) if settings.maps else index[:0]
    first = np.intersect1d(first, index)
    index = np.concatenate([first, np.setdiff1d(index, first)])
    answers = Predictions.read("fp32", run.predictions("fp32")).logits
    targets = explained_classes(answers, data.test.mask_class, data.task)[first]
    files = []
    for one in chosen:
        path = run.root / one.path
        twin = twin_path(path)
        files.append(AskedFile(one.variant, path, one.sha256, twin if twin.is_file() else None))
    groups = tuple(data.test.groups[position] for position in index.tolist())
    return Inquiry(
        tuple(files),
        data.test.images[index],
        AskedImages(data.test.labels[index], tuple(data.classes), groups),
        targets,
        record.data_sha256,
        _accuracy_settings(record),
        settings.stall_s,
    )


def _accuracy_settings(record: RunRecord) -> AccuracySettings:
    """Return how a run measured its answers; the defaults where this version does not know what it says."""
    from pydantic import ValidationError

    validation = record.configuration.get("validation")
    given = validation.get("accuracy", {}) if isinstance(validation, dict) else {}
    try:
        return AccuracySettings.model_validate(given)
    except ValidationError:
        return AccuracySettings()


def verify_file(model: Path, images: Path, settings: PlacesSettings, observer: Observer) -> tuple[PlaceRecord, ...]:
    """Ask one file at places about the images of a folder, without a run; a twin beside it is asked too.

    Args:
        model: an ONNX file that carries its preprocessing, as every one of ours does.
        images: a folder of images, without labels.
        settings: where, and about how many images.
        observer: who watches.

    Raises:
        UsageError: the file or the folder cannot be used.
        StageError: the file has no answers here.
    """
    from calibration_data.fitting import ImageForm
    from calibration_data.image_folder import read_image_folder
    from onnx_files.reading import read_model
    from onnx_files.sessions import open_session, predict, session_preprocessing
    from stages.saliency_twin.twin_file import twin_path

    read_model(model)  # a file from anywhere is parsed where it can break nothing
    session = open_session(model, "cpu", 1)
    preprocessing = session_preprocessing(session)
    width = None if preprocessing.width == preprocessing.image_size else preprocessing.width
    form = ImageForm(preprocessing.image_size, len(preprocessing.mean), "pad", width)
    with tempfile.TemporaryDirectory(prefix="edgeproof-verify-") as scratch, observer.stage("read images") as advance:
        read = read_image_folder(images, form, settings.images, 0, 0, Path(scratch), advance).calibration
        pixels = np.array(read.pixels)
    twin = twin_path(model)
    targets = np.zeros(0, np.int64)
    if settings.maps:
        targets = predict(session, pixels[: settings.maps], 1).argmax(axis=1).astype(np.int64)
    file = AskedFile(model.stem, model, sha256_of_file(model), twin if twin.is_file() else None)
    known = AskedImages(None, (), tuple(read.image_ids))
    inquiry = Inquiry((file,), pixels, known, targets, None, AccuracySettings(), settings.stall_s)
    with _alone_where_timed(settings.at, observer):
        return ask_places(inquiry, settings.at, observer)
