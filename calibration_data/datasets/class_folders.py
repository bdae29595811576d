"""What class folders of image files hold: `ROOT/CLASS/…/NAME.png`, with masks beside the images."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from calibration_data.dataset import Frame, Record
from calibration_data.image_files import (
    fingerprint_of_files,
    is_image_name,
    read_pixels,
    read_united_mask,
    require_inside,
)
from calibration_data.prepared import SplitName
from foundation.errors import UsageError
from foundation.files import sha256_of_file, sha256_of_json

_MASK_STEM = re.compile(r"(?P<image>.+)_mask(?:_\d+)?", re.DOTALL)


@dataclass(frozen=True)
class ClassFolders:
    """The files in class folders.

    Attributes:
        root: the folder that holds the class folders, resolved.
        classes: names of the class folders, sorted.
        images: the images' paths below `root`, with slashes, sorted.
        masks: image → its masks, both as paths below `root`.
        ignored: all other files, as paths below `root`, sorted.
    """

    root: Path
    classes: tuple[str, ...]
    images: tuple[str, ...]
    masks: Mapping[str, tuple[str, ...]]
    ignored: tuple[str, ...]


def scan_class_folders(
    root: Path, is_image: Callable[[Path], bool] = lambda path: is_image_name(path.name)
) -> ClassFolders:
    """Look through class folders; folders inside a class folder belong to that class.

    The masks of `NAME.EXT` are `NAME_mask.EXT` and `NAME_mask_1.EXT`, `NAME_mask_2.EXT`… beside it. Hidden files and
    folders are left out without a word.

    Args:
        root: the folder that holds the class folders, resolved.
        is_image: whether a file counts as an image (or a mask), rather than as ignored.

    Raises:
        UsageError: no class folder, a link that leaves `root`, an image that is a pipe, an unprintable name.
    """
    classes = tuple(sorted(path.name for path in visible_paths(root) if path.is_dir()))
    files: dict[str, Path] = {}
    ignored: list[str] = []
    pending = [root]
    while pending:
        folder = pending.pop()
        for path in visible_paths(folder):
            require_inside(root, path)
            if path.is_dir():
                if path.is_symlink():  # its images would be there twice, or without end
                    raise UsageError(f"{path}: expected a folder, found a link to a folder. Remove the link.")
                pending.append(path)
            elif folder == root or not _is_regular_image(path, is_image):
                ignored.append(path.relative_to(root).as_posix())
            else:
                files[path.relative_to(root).as_posix()] = path
    if not classes:
        raise UsageError(f"{root}: expected one folder per class, found none. Sort the images into folders.")
    by_stem = {path.with_suffix(""): name for name, path in sorted(files.items())}
    images: list[str] = []
    masks: dict[str, tuple[str, ...]] = {}
    for name, path in sorted(files.items()):
        match = _MASK_STEM.fullmatch(path.stem)
        if match is None:
            images.append(name)
        elif image := by_stem.get(path.with_name(match["image"])):
            masks[image] = (*masks.get(image, ()), name)
        else:
            ignored.append(name)
    return ClassFolders(root, classes, tuple(images), masks, tuple(sorted(ignored)))


def require_classes(found: Sequence[str], expected: Sequence[str], place: Path) -> None:
    """Check that the class folders are the data set's own.

    Raises:
        UsageError: naming the missing and the unexpected folders.
    """
    missing, foreign = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    if missing or foreign:
        raise UsageError(
            f"{place}: expected the folders {', '.join(expected)}; missing: {', '.join(missing) or 'none'}, "
            f"unexpected: {', '.join(foreign) or 'none'}. Set `source.root` to the folder that holds just these, or "
            "use the source `folder` for classes of your own."
        )


def records_of(
    folders: ClassFolders,
    *,
    prefix: str = "",
    official_split: SplitName | None = None,
    group_of: Callable[[str], str] | None = None,
    subgroups_of: Callable[[str], tuple[str, ...]] = lambda image: (),
) -> tuple[Record, ...]:
    """Return a record for every image.

    Args:
        folders: what `scan_class_folders` found.
        prefix: put before each path to make the image's id.
        official_split: the split that the authors fixed for all of them.
        group_of: image → group; default: the image itself.
        subgroups_of: image → names of its subgroups.
    """
    number = {name: label for label, name in enumerate(folders.classes)}
    return tuple(
        Record(
            image_id=prefix + image,
            label=number[image.split("/", 1)[0]],
            group=prefix + image if group_of is None else group_of(image),
            subgroups=subgroups_of(image),
            official_split=official_split,
            sha256=sha256_of_file(folders.root / image),
        )
        for image in folders.images
    )


def fingerprint_class_folders(folders: ClassFolders) -> str:
    """Return a sha256 over the classes and the paths and bytes of all images and masks."""
    names = [*folders.images, *(mask for masks in folders.masks.values() for mask in masks)]
    files = fingerprint_of_files(folders.root, [folders.root / name for name in names])
    return sha256_of_json({"classes": list(folders.classes), "files": files})


def load_image(root: Path, masks: Mapping[str, Sequence[str | Path]], record: Record) -> Frame:
    """Decode an image whose id is its path below `root`, with the union of its masks.

    Raises:
        BadImageError: the image or a mask cannot be read, or a mask has another size than the image.
    """
    pixels = read_pixels(root / record.image_id)
    paths = [root / mask for mask in masks.get(record.image_id, ())]
    return Frame(pixels, read_united_mask(paths, pixels.shape[:2]))


def _is_regular_image(path: Path, is_image: Callable[[Path], bool]) -> bool:
    if not path.is_file():
        if is_image_name(path.name):  # a name like an image's
            raise UsageError(f"{path}: expected an image file, found a pipe or a link to nothing. Remove it.")
        return False
    return is_image(path)


def visible_paths(folder: Path) -> list[Path]:
    """Return what is in a folder and not hidden.

    Raises:
        UsageError: a name that cannot be shown.
    """
    paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    for path in paths:
        if not path.name.isprintable():  # half a character of another encoding, or a command to the terminal
            raise UsageError(f"{str(path)!a}: expected a name in printable UTF-8. Rename it.")
    return paths
