"""The training loop: seeded, resumable, best epoch by validation data, alone or shared by several processes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor, nn

from calibration_data.prepared import PreparedData
from calibration_data.sampling import choose_calibration_images
from foundation.artifacts import Checkpoint
from foundation.errors import StageError, UsageError
from foundation.files import write_json
from foundation.progress import Progress, no_progress
from foundation.run_folder import RunFolder
from stages.network.checkpoint import NetworkSpec, save_checkpoint
from stages.network.normalisation import normalise
from stages.network.pact import fit_clips
from stages.network.pretrained import build_pretrained
from stages.network.quantizers import keep_clips_positive
from stages.train import processes
from stages.train.batches import batches, epoch_order
from stages.train.evaluation import SCORE_OF, evaluate
from stages.train.norm_statistics import norms_of, retake_statistics
from stages.train.objectives import loss_weights
from stages.train.recipe import build_optimizer, learning_rate, update_mean
from stages.train.settings import TrainSettings
from stages.train.state import Epoch, State, copy_of, resume, save_state
from stages.train.step import Loop, augmented, step_loss
from stages.train.teacher import Teacher, load_teacher, watched
from stages.train.tensorboard import epoch_log


def train(
    data: PreparedData,
    settings: TrainSettings,
    run: RunFolder,
    resume_key: str,
    progress: Progress = no_progress,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    say: Callable[[str], None] = lambda text: None,
) -> Checkpoint:
    """Train the network, write the best epoch's checkpoint and the history, and return the checkpoint.

    The state after each epoch is kept in the run folder until the end, so a killed training goes on from there and
    ends with the same bytes as one that was never interrupted. Under `torchrun` every process calls this; the one of
    rank 0 writes.

    Args:
        data: the prepared images; `test` is never looked at.
        settings: network and recipe.
        run: where the checkpoint, the history and the intermediate state go.
        resume_key: identity of this training; a state under another key is ignored.
        progress: called with (steps done, steps in all).
        on_epoch: called after each epoch.
        say: called with what did not fit of pretrained weights.

    Raises:
        UsageError: no GPU where one is asked for; pretrained weights or a teacher that do not fit; no batch norms
            where their statistics are asked for.
        StageError: the loss became infinite or NaN; the state of the last complete epoch is kept, and its best
            network is in `last_good.safetensors`.
    """
    device = _begin(settings)
    spec = NetworkSpec(
        settings.network, data.classes, data.channels, data.image_size, data.mean, data.std, settings.pact, data.task
    )
    with _seeded(settings.seed, device):
        state = _start(spec, settings, data, device, say)
    loop = _loop(data, settings, spec, state.network, device)
    state_path = run.checkpoint.with_name("state.pt")
    resume(state, state_path, resume_key)
    leads = processes.rank() == 0
    with epoch_log(run.checkpoint.with_name("tensorboard") if settings.tensorboard and leads else None) as log:
        while len(state.epochs) < settings.epochs and not _has_stalled(state.epochs, settings.patience):
            try:
                with _seeded(_seed(settings, len(state.epochs)) + (processes.rank() << 53), device):
                    _one_epoch(loop, state, log, progress)
            except StageError as error:
                failure = _keep_the_best(error, state, spec, run.checkpoint)
                processes.wait()  # for the one that writes
                raise failure from None
            if leads:
                save_state(state, state_path, resume_key)
                on_epoch(state.epochs[-1])
    if state.best:
        state.network.load_state_dict(state.best)
    if not leads:
        return Checkpoint(run.checkpoint, "")
    write_json(run.history, [epoch.as_json() for epoch in state.epochs])
    checkpoint = save_checkpoint(run.checkpoint, spec, state.network)
    state_path.unlink(missing_ok=True)
    return checkpoint


def _begin(settings: TrainSettings) -> torch.device:
    # What cuBLAS wants for results that repeat; it is read when the GPU is first used.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(settings.deterministic)
    # PyTorch would also fill every new tensor, to show who reads what nobody wrote: 2 % of a step, and no step does.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_num_threads(settings.threads)  # sums are taken in another order with another number
    has_gpu = torch.cuda.is_available()
    if settings.device == "cuda" and not has_gpu:
        raise UsageError(
            "train.device: expected a GPU that PyTorch can use, found none. Set it to auto or cpu, or install a "
            "PyTorch with CUDA."
        )
    device = torch.device("cuda" if has_gpu and settings.device != "cpu" else "cpu")
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    return device


def _start(
    spec: NetworkSpec, settings: TrainSettings, data: PreparedData, device: torch.device, say: Callable[[str], None]
) -> State:
    if settings.pretrained:
        network, report = build_pretrained(spec, settings.seed, settings.pretrained)
        say(report.text())
    else:
        network = spec.build(settings.seed)
    if settings.norm_batches is not None and not norms_of(network):
        raise UsageError(
            f"train.norm_batches: expected a network with batch norms, {settings.network!r} has none. Set it to null."
        )
    network.to(device)
    if settings.pact:
        chosen = choose_calibration_images(data, min(settings.batch_size, len(data.train)), 0)
        images = torch.from_numpy(data.train.images[chosen]).to(device)
        fit_clips(network.train(), normalise(images, spec.mean, spec.std))
    if settings.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = State(network, build_optimizer(network, settings))
    if settings.ema_decay is not None:
        state.mean = copy_of(network)
    return state


def _loop(
    data: PreparedData, settings: TrainSettings, spec: NetworkSpec, network: nn.Module, device: torch.device
) -> Loop:
    teacher: Teacher | None = None
    relus: tuple[nn.Module, ...] = ()
    if settings.distillation is not None:
        teacher = load_teacher(settings.distillation, spec, device)
        if teacher.relus:
            network, relus = watched(network.train(), spec)
    weights = None
    if settings.imbalance == "weighted_loss":
        weights = loss_weights(data.train.labels, len(data.classes)).to(device)
    return Loop(data, settings, spec, device, processes.together(network), relus, teacher, weights)


def _seed(settings: TrainSettings, epoch: int) -> int:
    return settings.seed * 1_000_003 + epoch


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Let what takes no generator of ours, as dropout, draw the same each time, and leave others' draws alone."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _kept(epoch: int) -> str:
    return "The state after the epoch before is kept." if epoch else "No epoch is complete, so nothing is kept."


def _one_epoch(loop: Loop, state: State, log: Callable[[Epoch, float], None], progress: Progress) -> None:
    """Train for one epoch, validate, and note what it achieved."""
    settings, epoch = loop.settings, len(state.epochs)
    # Generators of this epoch alone, so that a resumed run draws what an uninterrupted one would have drawn.
    seed = _seed(settings, epoch)
    generator = torch.Generator().manual_seed(seed)
    noise_generator = torch.Generator(loop.device).manual_seed(seed)
    parameters = list(state.network.parameters())  # and not the images, whose gradient saliency already took
    state.network.train()
    total_loss, seen = 0.0, 0
    order = epoch_order(loop.data, settings.imbalance, generator)
    for step, batch in enumerate(batches(loop.data.train, order, settings.batch_size)):
        done = epoch * loop.steps_per_epoch + step
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(settings, done, loop.steps)
        loss = step_loss(loop, batch, done, generator, noise_generator) * processes.share_of_loss(batch.size)
        value = processes.average(loss.detach()).item()
        if not math.isfinite(value):
            raise StageError(
                f"train: expected a finite loss, found {value} in epoch {epoch + 1}, step {step + 1}. "
                f"{_kept(epoch)} Lower `train.learning_rate` and run again."
            )
        state.optimizer.zero_grad()
        loss.backward(inputs=parameters)  # type: ignore[no-untyped-call]
        state.optimizer.step()
        keep_clips_positive(state.network)
        if settings.ema_decay is not None:
            update_mean(state.mean, state.network, settings.ema_decay, state.updates)
            state.updates += 1
        total_loss += value * batch.size
        seen += batch.size
        progress(done + 1, loop.steps)
    record = _validated(loop, state, epoch, total_loss / max(seen, 1))
    log(record, state.optimizer.param_groups[0]["lr"])
    state.epochs.append(record)


def _validated(loop: Loop, state: State, epoch: int, train_loss: float) -> Epoch:
    """Validate the network, or the running mean of its weights, and keep it if it is the best so far."""
    trained = copy_of(state.network) if state.mean else {}
    if state.mean:
        state.network.load_state_dict(state.mean)
    if loop.settings.norm_batches is not None:
        retake_statistics(state.network, _images_for_norms(loop, loop.settings.norm_batches))
    found = torch.tensor(evaluate(state.network, loop.data.validation, loop.spec), dtype=torch.float64)
    loss, score = processes.average(found).tolist()  # so that all stop at the same epoch
    if not math.isfinite(loss):
        raise StageError(
            f"train: expected a finite validation loss, found {loss} after epoch {epoch + 1}. "
            f"{_kept(epoch)} Lower `train.learning_rate` and run again."
        )
    record = Epoch(epoch + 1, train_loss, loss, SCORE_OF[loop.spec.task], score)
    if all(record.is_better_than(earlier) for earlier in state.epochs):
        state.best = copy_of(state.network)
    if trained:
        state.network.load_state_dict(trained)
    return record


def _images_for_norms(loop: Loop, count: int) -> Iterator[Tensor]:
    """Yield batches as training sees them, the same ones each time."""
    settings = loop.settings
    generator = torch.Generator().manual_seed(settings.seed)
    order = epoch_order(loop.data, settings.imbalance, generator)
    for batch in islice(batches(loop.data.train, order, settings.batch_size), count):
        yield augmented(loop, batch, generator)


def _has_stalled(epochs: list[Epoch], patience: int | None) -> bool:
    if patience is None or len(epochs) <= patience:
        return False
    best = epochs[0]
    for epoch in epochs[1:]:
        best = epoch if epoch.is_better_than(best) else best
    return epochs[-1].epoch - best.epoch >= patience


def _keep_the_best(error: StageError, state: State, spec: NetworkSpec, checkpoint: Path) -> StageError:
    if not state.best or processes.rank() != 0:
        return error
    path = checkpoint.with_name("last_good.safetensors")
    state.network.load_state_dict(state.best)
    save_checkpoint(path, spec, state.network)
    return StageError(f"{error} The best network so far is in {path.name}.")
