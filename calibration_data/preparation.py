"""From a source to decoded, resized and split images on disk."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calibration_data.dataset import Dataset, Frame, Record, labels_of
from calibration_data.decoding import Decoded, Load, decode
from calibration_data.fitting import ImageForm
from calibration_data.prepared import SPLITS, PreparedData
from calibration_data.prepared_folder import MANIFEST, Columns, Head, Rows, write_prepared
from calibration_data.split_checks import check_enough_images, check_official_splits
from calibration_data.splits import drop_leaking_images, equal_images, split_records
from foundation.arrays import let_go_of_pages
from foundation.errors import UsageError
from foundation.files import write_refused
from foundation.progress import Progress, no_progress

if TYPE_CHECKING:
    from calibration_data.settings import DataSettings

_LEAST_STD = 1e-3
_ROWS_AT_ONCE = 256


def prepare(
    dataset: Dataset,
    settings: DataSettings,
    folder: Path,
    progress: Progress = no_progress,
    *,
    training: bool = True,
    classes: Sequence[str] | None = None,
) -> PreparedData:
    """Decode, resize and split the source's images and write them into `folder`, the manifest last.

    The images are never in memory together: they are decoded a few at a time into an unnamed file, and copied from
    there into their splits.

    Args:
        dataset: the opened source.
        settings: in which form, and how to divide it.
        folder: where the arrays and `manifest.json` go.
        progress: called with the images done and all images.
        training: whether a network learns from them; where none does, a class need not stand in every split.
        classes: names of a model's outputs in their order, among which the data set's classes are looked up; None for
            the data set's own.

    Returns:
        What `read_prepared(folder)` would return.

    Raises:
        UsageError: the source is missing, a class has fewer images than there are splits or is none of `classes`, an
            image is bad and `bad_images` is "error", the images cannot be divided (see `split_records`), or the disk
            is full.
        StageError: a worker process died.
    """
    if classes is not None:
        dataset = with_classes(dataset, classes)
    if training and dataset.task == "multi_class":
        check_official_splits(dataset.records, dataset.classes)
        check_enough_images(dataset.records, dataset.classes)
    (folder / MANIFEST).unlink(missing_ok=True)  # without it, a half-written folder cannot be taken for a whole one
    records, dropped = list(dataset.records), list[str]()
    if settings.duplicates == "drop":
        records, dropped = drop_leaking_images(records)
    with _spool(folder) as images, _spool(folder) as masks:
        decoded = _decode_all(records, dataset, settings, images, masks, progress)
        assignment = split_records(
            decoded.records,
            dataset.classes,
            settings.split,
            "error" if settings.duplicates == "error" else "merge",
            dataset.task,
            training,
        )
        size, channels = settings.image_size, settings.channels
        all_images = _mapped(images, np.uint8, (len(decoded.records), channels, size, size))
        all_masks = _mapped(masks, np.bool_, (int((decoded.mask_row >= 0).sum()), size, size))
        rows = {name: np.flatnonzero([side == name for side in assignment]) for name in SPLITS}
        mean, std = settings.mean, settings.std
        if mean is None or std is None:
            mean, std = _mean_and_std(all_images, rows["train"])
        head = Head(
            dataset=dataset.name,
            task=dataset.task,
            classes=dataset.classes,
            mean=mean,
            std=std,
            synthetic=dataset.synthetic,
            groups_known=dataset.groups_known,
            skipped=decoded.skipped,
            dropped=dropped,
            merged=[] if settings.duplicates == "error" else equal_images(decoded.records),
            ignored=dataset.ignored,
            missing=dataset.missing,
            bits=decoded.bits,
        )
        splits = {
            name: (
                Rows(all_images, all_masks, chosen, decoded.mask_row[chosen]),
                _columns([decoded.records[row] for row in chosen], decoded.mask_class[chosen], dataset),
            )
            for name, chosen in rows.items()
        }
        return write_prepared(folder, head, splits)


def refuse_unknown_classes(dataset: Dataset, classes: Sequence[str]) -> None:
    """Look up a data set's classes among a model's.

    Raises:
        UsageError: one is none of them.
    """
    known = frozenset(classes)
    unknown = [name for name in dataset.classes if name not in known]
    if unknown:
        nearest = difflib.get_close_matches(unknown[0], classes, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"it has {', '.join(classes[:5])}…"
        more = f" ({len(unknown) - 1} more likewise)" if len(unknown) > 1 else ""
        raise UsageError(
            f"class {unknown[0]!r} of the images: expected one of the model's {len(classes)} classes, found none of "
            f"that name{more}; {hint}"
        )


def with_classes(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """Return a data set whose labels are indices into other names of classes, of which its own are some.

    Raises:
        UsageError: a class of the data set is none of them.
    """
    refuse_unknown_classes(dataset, classes)
    number = {name: index for index, name in enumerate(classes)}
    to = [number[name] for name in dataset.classes]

    def renumbered(label: int | tuple[int, ...]) -> int | tuple[int, ...]:
        return tuple(sorted(to[one] for one in label)) if isinstance(label, tuple) else to[label]

    records = tuple(replace(record, label=renumbered(record.label)) for record in dataset.records)
    load = partial(_load_by_own_labels, dataset.load, tuple(to))
    return replace(dataset, classes=tuple(classes), records=records, load=load)


def _load_by_own_labels(load: Load, to: tuple[int, ...], record: Record) -> Frame:
    """Decode a renumbered record; a source may decode by the labels that it gave, and name a mask's class by them."""
    own = {new: old for old, new in enumerate(to)}
    label = record.label
    record = replace(record, label=tuple(own[one] for one in label) if isinstance(label, tuple) else own[label])
    frame = load(record)
    return frame if frame.mask_class is None else replace(frame, mask_class=to[frame.mask_class])


@dataclass(frozen=True)
class _Decoded:
    records: list[Record]
    mask_row: NDArray[np.int64]
    mask_class: NDArray[np.int64]
    skipped: tuple[str, ...]
    bits: int | None


def _decode_all(
    records: Sequence[Record],
    dataset: Dataset,
    settings: DataSettings,
    images: IO[bytes],
    masks: IO[bytes],
    progress: Progress,
) -> _Decoded:
    """Append every image that can be read, and its mask, to the two files; raise or note the others."""
    kept: list[Record] = []
    mask_row: list[int] = []
    mask_class: list[int] = []
    skipped: list[str] = []
    found_masks = 0
    bits: int | None = None
    told = None if settings.bits == "auto" else settings.bits
    form = ImageForm(settings.image_size, settings.channels, settings.fit, bits=told, crop_share=settings.crop_share)
    outcomes = decode(records, dataset.load, form, settings.workers)
    for done, (record, outcome) in enumerate(zip(records, outcomes, strict=True), start=1):
        if isinstance(outcome, Decoded):
            images.write(outcome.image.tobytes())
            if outcome.mask is not None:
                masks.write(outcome.mask.tobytes())
                found_masks += 1
            mask_row.append(-1 if outcome.mask is None else found_masks - 1)
            mask_class.append(outcome.mask_class)
            bits = outcome.bits or bits
            kept.append(record)
        elif settings.bad_images == "error":
            raise UsageError(
                f"{record.image_id}: {outcome}. Replace or remove it, or set `bad_images: skip` to leave it out."
            ) from outcome
        else:
            skipped.append(f"{record.image_id}: {outcome}")
        progress(done, len(records))
    return _Decoded(kept, np.array(mask_row, np.int64), np.array(mask_class, np.int64), tuple(skipped), bits)


@contextmanager
def _spool(folder: Path) -> Iterator[IO[bytes]]:
    """Open a file without a name in the folder: it goes with the process, however that ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder) as stream:
            yield stream
    except OSError as error:
        raise write_refused(folder, error) from error


def _mapped(stream: IO[bytes], dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
    stream.flush()
    if 0 in shape:  # an empty file cannot be mapped
        return np.zeros(shape, dtype)
    return np.asarray(np.memmap(stream, dtype, "r", shape=shape))


def _columns(records: Sequence[Record], mask_class: NDArray[np.int64], dataset: Dataset) -> Columns:
    if dataset.task == "multi_label":
        labels = np.zeros((len(records), len(dataset.classes)), dtype=np.int64)
        for row, record in enumerate(records):
            labels[row, list(labels_of(record))] = 1
    else:
        labels = np.array([record.label for record in records], dtype=np.int64)
    return Columns(
        labels=labels,
        mask_class=mask_class,
        image_ids=[record.image_id for record in records],
        groups=[record.group for record in records],
        subgroups=[record.subgroups for record in records],
        sha256=[record.sha256 for record in records],
    )


def _mean_and_std(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel; from counts of gray values, so that they are exact."""
    counts = np.zeros((images.shape[1], 256), dtype=np.int64)
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        pixels = images[rows[start : start + _ROWS_AT_ONCE]]
        let_go_of_pages(images)
        for channel in range(len(counts)):
            counts[channel] += np.bincount(pixels[:, channel].reshape(-1), minlength=256)
    values = [int(value) for value in range(256)]
    means, stds = [], []
    for row in counts.tolist():  # Python's integers, which no data set is too large for
        n = sum(row)
        total = sum(count * value for count, value in zip(row, values, strict=True))
        squares = sum(count * value**2 for count, value in zip(row, values, strict=True))
        means.append(total / n / 255)
        stds.append(max(((squares * n - total * total) ** 0.5) / n / 255, _LEAST_STD))
    return tuple(means), tuple(stds)
