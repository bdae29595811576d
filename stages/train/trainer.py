"""The training loop: seeded, resumable, best epoch by validation data."""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from calibration_data.prepared import PreparedData, PreparedSplit
from calibration_data.sampling import choose_calibration_images
from pipeline.artifacts import JSON, Checkpoint, RunFolder, write_bytes, write_json
from pipeline.errors import StageError
from stages.network.checkpoint import NetworkSpec, save_checkpoint
from stages.network.normalisation import normalise
from stages.network.pact import fit_inserted_clips
from stages.network.quantizers import clip_bounds, keep_clips_positive
from stages.train.saliency_guided import saliency_guided_loss
from stages.train.settings import TrainSettings


@dataclass(frozen=True)
class Epoch:
    """What one epoch achieved."""

    epoch: int
    train_loss: float
    validation_loss: float
    validation_balanced_accuracy: float


@dataclass
class _Progress:
    """The mutable state of a training run; everything a resumed run needs."""

    network: nn.Module
    optimizer: torch.optim.SGD
    epochs: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)


def train(
    data: PreparedData,
    settings: TrainSettings,
    run: RunFolder,
    resume_key: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> Checkpoint:
    """Train the network, write the best epoch's checkpoint and the history, and return the checkpoint.

    The state after each epoch is kept in the run folder until the end, so a killed training goes on from there and
    ends with the same bytes as one that was never interrupted.

    Args:
        data: the prepared images; `test` is never looked at.
        settings: network and recipe.
        run: where the checkpoint, the history and the intermediate state go.
        resume_key: identity of this training; a state under another key is ignored.
        progress: called with (steps done, steps in all).
        on_epoch: called after each epoch.

    Raises:
        StageError: the loss became infinite or NaN; the state of the last complete epoch is kept.
    """
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(settings.threads)  # sums are taken in another order with another number
    spec = NetworkSpec(
        settings.network, data.classes, data.channels, data.image_size, data.mean, data.std, settings.pact
    )
    state = _start(spec, settings, data)
    state_path = run.checkpoint.with_name("state.pt")
    _resume(state, state_path, resume_key)
    steps_per_epoch = math.ceil(len(data.train) / settings.batch_size)
    for epoch in range(len(state.epochs), settings.epochs):
        record = _train_one_epoch(state, data, settings, spec, epoch, steps_per_epoch, progress)
        if _is_best(record, state.epochs):
            state.best = {name: tensor.clone() for name, tensor in state.network.state_dict().items()}
        state.epochs.append(record)
        _save(state, state_path, resume_key)
        on_epoch(record)
    state.network.load_state_dict(state.best)
    write_json(run.history, [asdict(epoch) for epoch in state.epochs])
    checkpoint = save_checkpoint(run.checkpoint, spec, state.network)
    state_path.unlink(missing_ok=True)
    return checkpoint


def _start(spec: NetworkSpec, settings: TrainSettings, data: PreparedData) -> _Progress:
    network = spec.build(settings.seed)
    if settings.pact:
        images = data.train.images[choose_calibration_images(data, min(settings.batch_size, len(data.train)), 0)]
        fit_inserted_clips(network.train(), normalise(torch.from_numpy(images), spec.mean, spec.std))
    alphas = clip_bounds(network)
    alpha_ids = {id(alpha) for alpha in alphas}
    # The paper's λ_α equals the weights' L2 coefficient; norms and biases decay like the rest, as in its recipe.
    weights = [parameter for parameter in network.parameters() if id(parameter) not in alpha_ids]
    groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": settings.weight_decay}]
    if settings.pact:
        l2 = settings.pact.alpha_l2
        groups.append({"params": alphas, "weight_decay": settings.weight_decay if l2 is None else l2})
    optimizer = torch.optim.SGD(groups, lr=settings.learning_rate, momentum=0.9, nesterov=True)
    return _Progress(network, optimizer)


def _train_one_epoch(
    state: _Progress,
    data: PreparedData,
    settings: TrainSettings,
    spec: NetworkSpec,
    epoch: int,
    steps_per_epoch: int,
    progress: Callable[[int, int], None],
) -> Epoch:
    # One generator per epoch, so that a resumed run draws what an uninterrupted one would have drawn.
    generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + epoch)
    order = torch.randperm(len(data.train), generator=generator).numpy()
    label_weights = _label_weights(data.train.labels, len(data.classes)) if settings.balance_classes else None
    parameters = list(state.network.parameters())
    state.network.train()
    total_loss = 0.0
    for step in range(steps_per_epoch):
        chosen = np.sort(order[step * settings.batch_size : (step + 1) * settings.batch_size])
        if len(chosen) < 2:
            continue  # batch norm has no variance over a single image
        images = normalise(torch.from_numpy(data.train.images[chosen]), spec.mean, spec.std)
        labels = torch.from_numpy(data.train.labels[chosen])
        if settings.augment == "flip":
            images = random_flips(images, generator)
        done, total = epoch * steps_per_epoch + step, settings.epochs * steps_per_epoch
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(settings, done, total)
        if settings.saliency_guided:
            loss, _ = saliency_guided_loss(
                state.network, images, labels, settings.saliency_guided, generator, label_weights
            )
        else:
            loss = F.cross_entropy(state.network(images), labels, weight=label_weights)
        if not math.isfinite(loss.item()):
            raise StageError(
                f"train: expected a finite loss, found {loss.item()} in epoch {epoch + 1}, step {step + 1}. "
                "The state after the last complete epoch is kept; lower `train.learning_rate` and run again."
            )
        state.optimizer.zero_grad()
        loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
        state.optimizer.step()
        keep_clips_positive(state.network)
        total_loss += loss.item() * len(chosen)
        progress(done + 1, total)
    validation_loss, balanced_accuracy = evaluate(state.network, data.validation, spec)
    if not math.isfinite(validation_loss):
        raise StageError(
            f"train: expected a finite validation loss, found {validation_loss} after epoch {epoch + 1}. "
            "The state after the epoch before is kept; lower `train.learning_rate` and run again."
        )
    return Epoch(epoch + 1, total_loss / len(data.train), validation_loss, balanced_accuracy)


def learning_rate(settings: TrainSettings, step: int, steps: int) -> float:
    """Return the rate of a step: a linear rise to the peak, then a half cosine to zero."""
    warmup = settings.warmup_fraction * steps
    if step < warmup:
        return settings.learning_rate * (step + 1) / (warmup + 1)
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def random_flips(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return the images, each flipped left-right and upside down with probability one half each."""
    for dimension in (2, 3):
        flipped = torch.rand(len(images), generator=generator) < 0.5
        images = torch.where(flipped[:, None, None, None], images.flip(dimension), images)
    return images


def evaluate(
    network: nn.Module, split: PreparedSplit, spec: NetworkSpec, batch_size: int = 256
) -> tuple[float, float]:
    """Return cross entropy and balanced accuracy (mean recall of the classes present) on a split."""
    network.eval()
    logits = []
    with torch.no_grad():
        for start in range(0, len(split), batch_size):
            pixels = torch.from_numpy(split.images[start : start + batch_size])
            logits.append(network(normalise(pixels, spec.mean, spec.std)))
    scores, labels = torch.cat(logits), torch.from_numpy(split.labels)
    correct = (scores.argmax(1) == labels).double()
    recalls = [correct[labels == label].mean().item() for label in np.unique(split.labels)]
    return F.cross_entropy(scores, labels).item(), sum(recalls) / len(recalls)


def _label_weights(labels: NDArray[np.int64], classes: int) -> Tensor:
    counts = np.bincount(labels, minlength=classes)
    return torch.from_numpy((len(labels) / (classes * np.maximum(counts, 1))).astype(np.float32))


def _is_best(record: Epoch, earlier: list[Epoch]) -> bool:
    def quality(epoch: Epoch) -> tuple[float, float]:
        return epoch.validation_balanced_accuracy, -epoch.validation_loss

    return all(quality(record) > quality(epoch) for epoch in earlier)


def _save(state: _Progress, path: Path, key: str) -> None:
    record: dict[str, JSON] = {
        "key": key,
        "network": state.network.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "best": state.best,
        "epochs": [asdict(epoch) for epoch in state.epochs],
    }
    # Through memory, because torch reports a full disk as a RuntimeError of its own.
    content = io.BytesIO()
    torch.save(record, content)
    write_bytes(path, content.getvalue())


def _resume(state: _Progress, path: Path, key: str) -> None:
    if not path.exists():
        return
    try:
        record = torch.load(path, weights_only=True)
        if record["key"] != key:
            return
        state.network.load_state_dict(record["network"])
        state.optimizer.load_state_dict(record["optimizer"])
    except (pickle.UnpicklingError, EOFError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise StageError(
            f"{path}: expected the state of an interrupted training, found a damaged file ({type(error).__name__}). "
            "Delete it to train from the beginning."
        ) from error
    state.best = record["best"]
    state.epochs = [Epoch(**epoch) for epoch in record["epochs"]]
