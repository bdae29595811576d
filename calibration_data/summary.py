"""What was found among the images and what was left out and why, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from calibration_data.prepared import SPLITS, PreparedData

_NAMED = 3
"""How many of many a sentence names."""


def summary_lines(data: PreparedData, named: bool) -> list[str]:
    """Return one sentence per fact: what there is first, then everything that is not in the splits or not known.

    Args:
        data: the images.
        named: name some of the files; where the sentences are handed on, names stay out of them.
    """
    lines = [_found(data)]
    with_mask = sum(int(data.split(name).has_mask.sum()) for name in SPLITS)
    if with_mask:
        lines.append(f"{_count(with_mask, 'image has', 'images have')} a mask.")
    if data.missing:
        counted = _count(len(data.missing), "image that the source lists is", "images that the source lists are")
        lines.append(f"{counted} not there and passed over{_some(data.missing, named)}.")
    if data.skipped:
        counted = _count(len(data.skipped), "image could not be read and was", "images could not be read and were")
        lines.append(f"{counted} skipped{_some(data.skipped, named)}.")
    if data.dropped:
        counted = _count(len(data.dropped), "image was", "images were")
        lines.append(f"{counted} left out, being equal to others in a stricter split{_some(data.dropped, named)}.")
    if data.merged:
        lines.append(f"{_count(len(data.merged), 'equal image was', 'equal images were')} kept on one side.")
    if data.ignored:
        counted = _count(len(data.ignored), "file is no image and was", "files are no images and were")
        lines.append(f"{counted} ignored{_some(data.ignored, named)}.")
    if data.bits is not None:
        lines.append(f"Gray images of 16 bits are taken to use {data.bits} of them.")
    if not named and any((data.missing, data.skipped, data.dropped, data.ignored)):
        lines.append("Their names and the reasons stand in data/manifest.json, which stays with the images.")
    if not data.groups_known:
        splits = [data.split(name) for name in SPLITS]
        any_named = any(split.groups != split.image_ids for split in splits)
        told = "Not every image names its patient" if any_named else "No patients are named"
        lines.append(f"{told}: leakage between the splits is not excluded.")
    return lines


def _found(data: PreparedData) -> str:
    splits = [data.split(name) for name in SPLITS]
    found = _count(sum(len(split) for split in splits), "image", "images")
    if data.groups_known:
        groups = {group for split in splits for group in split.groups}
        found += f" of {_count(len(groups), 'group', 'groups')}"
    sizes = ", ".join(f"{len(split):,} {name}" for name, split in zip(SPLITS, splits, strict=True))
    return f"{found}: {sizes}."


def _count(number: int, singular: str, plural: str) -> str:
    return f"{number:,} {singular if number == 1 else plural}"


def _some(names: Sequence[str], named: bool) -> str:
    if not named:
        return ""
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f": {', '.join(names[:_NAMED])}{more}"
