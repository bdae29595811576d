"""Which images an epoch takes in which order, and their way from disk, ahead of the step that needs them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from calibration_data.prepared import PreparedData, PreparedSplit
from calibration_data.sampling import strata
from stages.train import processes


@dataclass(frozen=True)
class Batch:
    """Our part of a batch.

    Attributes:
        images: uint8 [n, channels, height, width], on the CPU.
        labels: int64 [n] or [n, classes], on the CPU.
        size: images of the whole batch, over all processes.
    """

    images: Tensor
    labels: Tensor
    size: int


def epoch_order(data: PreparedData, imbalance: str, generator: torch.Generator) -> NDArray[np.int64]:
    """Return an epoch's images in their order, int64 [n], indices into the training split.

    Every image once; with "weighted_sampling" as many draws with replacement, every class equally often (of a
    multi-label image its rarest label, see `strata`).
    """
    count = len(data.train)
    if imbalance != "weighted_sampling":
        return torch.randperm(count, generator=generator).numpy()
    of_class = strata(data.train.labels, len(data.classes))
    rarity = torch.from_numpy(1.0 / np.bincount(of_class)[of_class])
    return torch.multinomial(rarity, count, replacement=True, generator=generator).numpy()


def batches(split: PreparedSplit, order: NDArray[np.int64], batch_size: int) -> Iterator[Batch]:
    """Yield our part of each batch; the next one is read from disk while this one is trained on.

    A last batch of a single image is left out, since batch norm has no variance over it, and so is one that has not
    an image for every process.
    """
    least = max(2, processes.count())
    # Sorted, so that a batch is read in the order in which it lies on disk.
    chosen = [np.sort(order[start : start + batch_size]) for start in range(0, len(order), batch_size)]
    chosen = [batch for batch in chosen if len(batch) >= least]

    def read(batch: NDArray[np.int64]) -> Batch:
        ours = batch[processes.part_of(len(batch))]
        return Batch(torch.from_numpy(split.images[ours]), torch.from_numpy(split.labels[ours]), len(batch))

    with ThreadPoolExecutor(1) as reader:
        pending = [reader.submit(read, batch) for batch in chosen[:1]]
        for step in range(len(chosen)):
            batch = pending.pop().result()
            if step + 1 < len(chosen):
                pending.append(reader.submit(read, chosen[step + 1]))
            yield batch
