"""Decode many records in their order, a few at a time, in worker processes where that pays."""

from __future__ import annotations

import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from calibration_data.dataset import BadImageError, Frame, Record
from calibration_data.fitting import ImageForm, fit_frame
from foundation.errors import StageError

_CHUNK = 64
_WORTH_WORKERS_S = 4.0  # a worker takes about a second to start


@dataclass(frozen=True)
class Decoded:
    """One image in the network's form.

    Attributes:
        image: uint8 [channels, size, size].
        mask: bool [size, size], or None.
        mask_class: the class whose finding the mask shows, −1 where it is simply the image's own.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_] | None
    mask_class: int


Load = Callable[[Record], Frame]
DecodedOrBad = Decoded | BadImageError


def decode(records: Sequence[Record], load: Load, form: ImageForm, workers: int | None) -> Iterator[DecodedOrBad]:
    """Yield every record's image, or why it cannot be used, in the order of the records.

    At any time no more than a few hundred images are in memory, however slowly they are taken.

    Args:
        records: what to decode.
        load: decodes one record; picklable where workers are used.
        form: of the images.
        workers: processes to decode in; 0 for none; None for one per core if the first images say that it pays.

    Raises:
        StageError: a worker process died, for want of memory for instance.
    """
    chunks = [records[start : start + _CHUNK] for start in range(0, len(records), _CHUNK)]
    if workers is None and chunks:
        started = time.perf_counter()
        first, *chunks = chunks
        yield from [_decode_one(record, load, form) for record in first]
        expected_s = (time.perf_counter() - started) * len(chunks)
        workers = os.cpu_count() if expected_s > _WORTH_WORKERS_S else 0
    if not workers:
        for chunk in chunks:
            for record in chunk:
                yield _decode_one(record, load, form)
        return
    # Spawned rather than forked: the parent may have threads that a fork would leave behind locked.
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_begin, initargs=(load, form)) as pool:
        pending: deque[Future[list[DecodedOrBad]]] = deque()
        try:
            for chunk in chunks:
                pending.append(pool.submit(_decode_chunk, chunk))
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


def _decode_one(record: Record, load: Load, form: ImageForm) -> DecodedOrBad:
    try:
        frame = load(record)
    except BadImageError as error:
        return error
    image, mask = fit_frame(frame, form)
    return Decoded(image, mask, -1 if frame.mask_class is None else frame.mask_class)


# --- in a worker ---

_worker: list[tuple[Load, ImageForm]] = []


def _begin(load: Load, form: ImageForm) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C, with one sentence
    _worker[:] = [(load, form)]


def _decode_chunk(records: Sequence[Record]) -> list[DecodedOrBad]:
    load, form = _worker[0]
    return [_decode_one(record, load, form) for record in records]
