"""The epochs in TensorBoard's format, for those who watch a training there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from foundation.errors import UsageError
from stages.train.state import Epoch


@contextmanager
def epoch_log(folder: Path | None) -> Iterator[Callable[[Epoch, float], None]]:
    """Yield a function of an epoch and the learning rate it ended with, which writes both into `folder`, if any.

    Raises:
        UsageError: TensorBoard is not installed.
    """
    if folder is None:
        yield lambda epoch, learning_rate: None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "train.tensorboard: expected the package tensorboard, found none. Install it with "
            "`pip install 'edgeproof[tensorboard]'`, or set `tensorboard: false`."
        ) from error

    def write(epoch: Epoch, learning_rate: float) -> None:
        values = {name: value for name, value in epoch.as_json().items() if name != "epoch"}
        for name, value in {**values, "learning_rate": learning_rate}.items():
            writer.add_scalar(name, value, epoch.epoch)

    writer = SummaryWriter(str(folder))
    try:
        yield write
    finally:
        writer.close()
