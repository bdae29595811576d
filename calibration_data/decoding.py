"""Decode many records in their order, a few at a time, in worker processes where that pays."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from calibration_data.dataset import BadImageError, Frame, Record
from calibration_data.fitting import ImageForm, UndecidedBitsError, bits_for, fit_frame, largest_of_16_bits
from foundation.child import safe_spawning
from foundation.child_start import end_with_parent
from foundation.errors import StageError
from foundation.processor import usable_cores

_CHUNK = 64
_WORTH_WORKERS_S = 4.0  # a worker takes about a second to start


@dataclass(frozen=True)
class Decoded:
    """One image in the network's form.

    Attributes:
        image: uint8 [channels, size, size].
        mask: bool [size, size], or None.
        mask_class: the class whose finding the mask shows, −1 where it is simply the image's own.
        bits: how many of the 16 bits of a gray image were taken to be in use; None for one of 8.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    mask_class: int
    bits: int | None


Load = Callable[[Record], Frame]
DecodedOrBad = Decoded | BadImageError
_Result = TypeVar("_Result")


def decode(records: Sequence[Record], load: Load, form: ImageForm, workers: int | None) -> Iterator[DecodedOrBad]:
    """Yield every record's image, or why it cannot be used, in the order of the records.

    At any time no more than a few hundred images are in memory, however slowly they are taken. Where the form leaves
    open how many bits 16-bit images use, the first such image has all records read once more: the largest value of
    all decides.

    Args:
        records: what to decode.
        load: decodes one record; picklable where workers are used.
        form: of the images.
        workers: processes to decode in; 0 for none; None for one per core if the first images say that it pays.

    Raises:
        StageError: a worker process died, for want of memory for instance.
    """
    done = 0
    while True:
        try:
            for outcome in _in_order(records[done:], partial(_decode_one, load, form), workers):
                yield outcome
                done += 1
            return
        except UndecidedBitsError:  # all images before have 8 bits, so they stay as they are
            form = replace(form, bits=bits_for(max(_in_order(records, partial(_largest, load), workers))))


def _in_order(records: Sequence[Record], work: Callable[[Record], _Result], workers: int | None) -> Iterator[_Result]:
    """Yield what the work makes of every record, in their order; `work` is picklable where workers are used."""
    chunks = [records[start : start + _CHUNK] for start in range(0, len(records), _CHUNK)]
    if workers is None and chunks:
        started = time.perf_counter()
        first, *chunks = chunks
        yield from [work(record) for record in first]
        expected_s = (time.perf_counter() - started) * len(chunks)
        workers = usable_cores() if expected_s > _WORTH_WORKERS_S else 0
    if not workers:
        for chunk in chunks:
            for record in chunk:
                yield work(record)
        return
    # Spawned rather than forked: the parent may have threads that a fork would leave behind locked.
    context = get_context("spawn")
    begun_with = (os.getpid(), work)
    with safe_spawning(), ProcessPoolExecutor(workers, context, initializer=_begin, initargs=begun_with) as pool:
        pending: deque[Future[list[_Result]]] = deque()
        try:
            for chunk in chunks:
                pending.append(pool.submit(_work_through, chunk))
                if len(pending) > 2 * workers:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        except BrokenProcessPool as error:
            raise StageError(
                "data: expected the worker processes to decode the images, found that one died (out of memory?). "
                "Set `data.workers` to a lower number, or to 0 to decode in one process."
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _decode_one(load: Load, form: ImageForm, record: Record) -> DecodedOrBad:
    try:
        frame = load(record)
        image, mask = fit_frame(frame, form)
    except BadImageError as error:
        return error
    mask_class = -1 if frame.mask_class is None else frame.mask_class
    return Decoded(image, mask, mask_class, form.bits if frame.pixels.dtype == np.uint16 else None)


def _largest(load: Load, record: Record) -> int:
    try:
        return largest_of_16_bits(load(record).pixels)
    except BadImageError:
        return 0


# --- in a worker ---

_worker: list[Callable[[Record], Any]] = []


def _begin(parent: int, work: Callable[[Record], Any]) -> None:
    end_with_parent(parent)
    _worker[:] = [work]


def _work_through(records: Sequence[Record]) -> list[Any]:
    return [_worker[0](record) for record in records]
