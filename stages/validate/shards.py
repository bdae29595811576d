"""Answers in shards: a part of the images is answered from file to file, and the parts joined are the whole's bytes.

A query's other images may change an answer by rounding, and dynamic quantization takes its range from all of them. So
shards begin where a query of the whole begins; then who answers which, and in how many shards, changes no byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foundation.arrays import read_arrays, write_arrays
from foundation.errors import UsageError
from foundation.progress import Progress, no_progress
from onnx_files.sessions import batch_size_of, gives_scores, open_session, predict
from stages.validate.accuracy import AccuracySettings
from stages.validate.answers import Labels, Predictions


@dataclass(frozen=True)
class Shard:
    """The images from `start` up to `stop`, which is not among them, of `images` in all."""

    start: int
    stop: int
    images: int


def cut_into_shards(model: Path, images: int, settings: AccuracySettings, shards: int) -> tuple[Shard, ...]:
    """Return at most so many shards that together are all images, as equal as whole queries allow.

    Args:
        model: an ONNX file; what it fixes of its batch counts.
        images: how many there are, at least 1.
        settings: of whom the batch size counts.
        shards: at least 1; fewer come back where there are fewer queries.

    Raises:
        UsageError: there is no image, or no shard.
    """
    if images < 1 or shards < 1:
        raise UsageError(f"shards: expected one image and one shard or more, found {images} and {shards}.")
    size = batch_size_of(open_session(model, "cpu", 1), settings.batch_size)
    queries = -(-images // size)
    count = min(shards, queries)
    ends = [min(queries * place // count * size, images) for place in range(count + 1)]
    return tuple(Shard(start, stop, images) for start, stop in pairwise(ends))


def answer_shard(
    model: Path,
    images: Path,
    shard: Shard,
    settings: AccuracySettings,
    target: Path,
    progress: Progress = no_progress,
) -> None:
    """Answer a shard with a file on the CPU provider; nothing else is read, and nothing but `target` written.

    Args:
        model: an ONNX file.
        images: the `.npy` of all prepared images of the split, uint8 [n, channels, h, w]; only the shard is read.
        shard: one of `cut_into_shards`.
        settings: batch size and threads, those of all other shards.
        target: the `.npz` to write.
        progress: called after each query with the images done and those of the shard.

    Raises:
        UsageError: a file is missing or none of its kind, or the shard does not begin and end with a query.
        StageError: a logit is not finite.
    """
    pixels = _mapped(images)
    session = open_session(model, "cpu", settings.threads)
    size = batch_size_of(session, settings.batch_size)
    whole = shard.start % size == 0 and (shard.stop % size == 0 or shard.stop == shard.images)
    if not whole or not 0 <= shard.start < shard.stop <= shard.images or shard.images != len(pixels):
        raise UsageError(
            f"{images}: expected a shard of its {len(pixels)} images that begins and ends with a query of {size}, "
            f"found {shard.start} to {shard.stop} of {shard.images}. Take one of `cut_into_shards`."
        )
    logits = predict(session, pixels[shard.start : shard.stop], settings.batch_size, progress)
    write_arrays(
        target,
        {
            "logits": logits,
            "scored": np.array(gives_scores(session), dtype=np.bool_),
            "shard": np.array([shard.start, shard.stop, shard.images], dtype=np.int64),
        },
    )


def join_shards(variant: str, parts: Sequence[Path], labels: Labels, target: Path) -> Predictions:
    """Write the answers of all shards as `predict_variant` would have written the whole, to the byte.

    Args:
        variant: the file's name.
        parts: what `answer_shard` wrote, in any order.
        labels: of all images, as in the split.
        target: the `.npz` to write.

    Raises:
        UsageError: a part is missing or damaged, or together they are not each image once.
    """
    read = [read_arrays(path, ("logits", "scored", "shard")) for path in parts]
    for path, (logits, _, shard) in zip(parts, read, strict=True):
        if shard.shape != (3,) or logits.ndim != 2 or len(logits) != shard[1] - shard[0]:
            raise UsageError(f"{path}: expected the answers of a shard, found something else. Answer it again.")
    read.sort(key=lambda part: int(part[2][0]))
    begins = [int(shard[0]) for _, _, shard in read]
    ends = [0, *(int(shard[1]) for _, _, shard in read)]
    of_one_file = len({(bool(scored), logits.shape[1]) for logits, scored, _ in read}) == 1
    of_these_images = {int(shard[2]) for _, _, shard in read} == {len(labels)}
    if not (of_one_file and of_these_images and begins == ends[:-1] and ends[-1] == len(labels)):
        found = ", ".join(f"{start} to {stop}" for start, stop in zip(begins, ends[1:], strict=True))
        raise UsageError(
            f"{variant}: expected shards that are each of {len(labels)} images once, with one file, found "
            f"{found or 'none'}. Answer what is missing."
        )
    predictions = Predictions(
        variant, np.concatenate([logits for logits, _, _ in read]), labels, target, bool(read[0][1])
    )
    predictions.write()
    return predictions


def _mapped(images: Path) -> NDArray[np.uint8]:
    try:
        pixels = np.load(images, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UsageError(f"{images}: expected prepared images, found no file. Prepare them first.") from error
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{images}: expected prepared images, found something else ({error}).") from error
    if not isinstance(pixels, np.memmap) or pixels.ndim != 4 or pixels.dtype != np.uint8:
        raise UsageError(f"{images}: expected uint8 [n, channels, h, w], found something else. Prepare them again.")
    return np.asarray(pixels)
