"""How pixels become a foreign file's input: by what its user says, else by its own metadata, never by a guess."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import UsageError
from onnx_files.image_input import ImageInput, image_input
from onnx_files.preprocessing import METADATA_KEY, Preprocessing
from stages.given.settings import FileForm

if TYPE_CHECKING:
    from onnx import ModelProto

Spelling = Callable[[str], str]
"""How its user writes a setting: `--image-size` on the command line, `mean` in a configuration."""

_LEAST_STD = 1e-6
_LARGEST_IMAGE_SIZE = 4096


def preprocessing_for(
    proto: ModelProto, path: Path, form: FileForm, image_size: tuple[int, int] | None, spelled: Spelling
) -> tuple[ImageInput, Preprocessing]:
    """Return the model's input, and how images become it.

    Args:
        proto: the model.
        path: of the file, for messages.
        form: what its user says.
        image_size: height and width by the user's word; None where nobody said.
        spelled: how the user writes settings, for messages.

    Raises:
        UsageError: neither the user nor the metadata says, or they contradict the model's shape.
    """
    written = _written(proto, path)
    entry = image_input(proto, path, form.layout or (written.layout if written else None))
    height, width = _size(entry, written, path, image_size, spelled)
    mean, std = _normalisation(entry, written, path, form, spelled)
    order = form.channel_order if form.mean is not None or written is None else written.channel_order
    preprocessing = Preprocessing(
        entry.element_type, mean, std, height, None if width == height else width, entry.layout, order
    )
    return replace(entry, channels=entry.channels or len(mean)), preprocessing


def _written(proto: ModelProto, path: Path) -> Preprocessing | None:
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    if METADATA_KEY not in metadata:
        return None
    try:
        return Preprocessing.from_metadata(metadata)
    except ValueError as error:
        raise UsageError(f"{path}: {error} in the model's metadata. Remove the entry and give options.") from error


def _size(
    entry: ImageInput,
    written: Preprocessing | None,
    path: Path,
    image_size: tuple[int, int] | None,
    spelled: Spelling,
) -> tuple[int, int]:
    told = image_size
    if told is None and written is not None:
        told = written.image_size, written.width
    if told is None and (entry.height is None or entry.width is None):
        raise UsageError(
            f"{path}: expected an input of fixed height and width, found one that takes any. "
            f"Give {spelled('image_size')} 224, or {spelled('image_size')} 224x320 (height and width)."
        )
    height, width = (fixed or said for fixed, said in zip((entry.height, entry.width), told or (0, 0), strict=True))
    if told is not None and told != (height, width):
        where = spelled("image_size") if image_size is not None else f"`{METADATA_KEY}` in the model's metadata"
        raise UsageError(
            f"{path}: expected images of {height} × {width} (height and width), found {told[0]} × {told[1]} "
            f"in {where}. The model takes no other size."
        )
    if max(height, width) > _LARGEST_IMAGE_SIZE:
        raise UsageError(
            f"{path}: expected images of at most {_LARGEST_IMAGE_SIZE} pixels a side, found {height} × {width}."
        )
    return height, width


def _normalisation(
    entry: ImageInput, written: Preprocessing | None, path: Path, form: FileForm, spelled: Spelling
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    told = {"mean": form.mean, "std": form.std}
    given = [spelled(name) for name, values in told.items() if values is not None]
    if entry.element_type == "uint8":
        if given:
            raise UsageError(
                f"{' and '.join(given)}: the model takes pixels of 0…255 (its input is uint8). Leave them out."
            )
        channels = entry.channels or (len(written.mean) if written else 3)
        return (written.mean, written.std) if written else ((0.0,) * channels, (1.0,) * channels)
    if not given and written is not None:
        return _checked_channels(written.mean, entry, path), _checked_channels(written.std, entry, path)
    if form.mean is None or form.std is None:
        mean, std, scale = (spelled(name) for name in ("mean", "std", "scale"))
        missing = " and ".join(spelled(name) for name, values in told.items() if values is None)
        raise UsageError(
            f"{path}: expected to know how pixels become its float input `{entry.name}`, found nothing of "
            f"it in its metadata. Give {missing}; for pixels scaled to 0…1 {mean} 0 {std} 1, for the usual ImageNet "
            f"model {mean} 0.485,0.456,0.406 {std} 0.229,0.224,0.225, for pixels of 0…255 {mean} 0 {std} 1 "
            f"{scale} 255."
        )
    if min(form.std) < _LEAST_STD:
        raise UsageError(f"{spelled('std')}: expected positive values, found {', '.join(map(str, form.std))}.")
    of_mean, of_std = (_channels(values, entry, path, form.scale) for values in (form.mean, form.std))
    return of_mean, of_std


def _channels(values: tuple[float, ...], entry: ImageInput, path: Path, scale: int) -> tuple[float, ...]:
    scaled = tuple(value / scale for value in values)
    if len(scaled) == 1:
        scaled *= entry.channels or 1
    return _checked_channels(scaled, entry, path)


def _checked_channels(values: tuple[float, ...], entry: ImageInput, path: Path) -> tuple[float, ...]:
    expected = (entry.channels,) if entry.channels else (1, 3)
    if len(values) not in expected:
        counts = " or ".join(str(count) for count in expected)
        raise UsageError(
            f"{path}: expected a mean and a std for {counts} channels of `{entry.name}`, found {len(values)}."
        )
    return values
