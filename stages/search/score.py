"""How a candidate file compares with the float file on images that neither was made from: what a search must know."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from calibration_data.prepared import PreparedSplit, Task
from foundation.measurements import PairedDifference
from foundation.note_parts import Estimate, ScoreNote
from foundation.processor import usable_cores
from onnx_files.sessions import open_session, predict, session_preprocessing
from stages.search.limits import ACCURACY_DROP, AGREEMENT, SALIENCY
from stages.validate import map_similarity, metrics
from stages.validate.answers import decided
from stages.validate.explained import explained_classes, images_to_explain
from stages.validate.intervals import estimates, means, ratios
from stages.validate.intervals.groups import too_few, unit_count, units_of
from stages.validate.intervals.paired import paired_shares
from stages.validate.intervals.proportions import Decisions
from stages.validate.intervals.resampling import bootstrap_t_interval, resampled
from stages.validate.maps.gradients import gradient_maps
from stages.validate.maps.methods import ExplainedFiles, open_method
from stages.validate.maps.queries import Twin
from stages.validate.maps.settings import MapSettings

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

_RESAMPLES = 1000
_NEARLY_ONE = 1.0 - 1e-9
"""Fisher's z of 1 is infinite."""
_BATCH_SIZE = 1
"""As on a device; and some files leave the batch open but were exported for one image."""


@dataclass(frozen=True)
class Reference:
    """The float file's answers and maps on the images that candidates are scored on.

    Attributes:
        path: the float file.
        images: uint8 [n, channels, height, width].
        labels: int64 [n] or uint8 [n, labels], as the task has it; None where nobody knows them.
        units: int64 [n], groups of images that belong together.
        task: the kind of task.
        logits: float32 [n, classes].
        explained: int64 [m], which of the images are explained.
        targets: int64 [m], the class that is explained.
        maps: float32 [m, height, width].
        without_gradient: why the maps are made by occlusion; "" where they are gradient maps.
    """

    path: Path
    images: NDArray[np.uint8]
    labels: NDArray[np.integer] | None
    units: Indices
    task: Task
    logits: NDArray[np.float32]
    explained: Indices
    targets: Indices
    maps: NDArray[np.float32]
    without_gradient: str


def part_of(reference: Reference, images: int, explained: int) -> Reference:
    """Return a reference of fewer images, evenly spread: those explained first, then others.

    Args:
        reference: of all images.
        images: how many, at most.
        explained: how many of them are explained, at most.
    """
    few = _spread(len(reference.explained), explained)
    rows = reference.explained[few]
    others = np.setdiff1d(np.arange(len(reference.images)), rows)
    rows = np.sort(np.concatenate([rows, others[_spread(len(others), max(0, images - len(rows)))]]))
    return replace(
        reference,
        images=reference.images[rows],
        labels=None if reference.labels is None else reference.labels[rows],
        units=reference.units[rows],
        logits=reference.logits[rows],
        explained=np.searchsorted(rows, reference.explained[few]),
        targets=reference.targets[few],
        maps=reference.maps[few],
    )


def _spread(size: int, count: int) -> Indices:
    return np.arange(min(size, count), dtype=np.int64) * size // max(1, min(size, count))


def reference_answers(
    path: Path,
    twin: Path | None,
    split: PreparedSplit,
    task: Task,
    labelled: bool,
    images: int,
    explained: int,
    seed: int,
    without_gradient: str = "",
) -> Reference:
    """Answer and explain images with the float file.

    Args:
        path: the float file.
        twin: its saliency twin; None for maps by occlusion.
        split: where the images come from, usually validation.
        task: the kind of task.
        labelled: whether the split's labels are known.
        images: how many are answered, all where there are fewer.
        explained: how many of them are explained.
        seed: of their choice.
        without_gradient: why there is no twin.
    """
    chosen = images_to_explain(split, images, seed)
    pixels = split.images[chosen]
    logits = predict(open_session(path, "cpu", 1), pixels, _BATCH_SIZE)
    targets = explained_classes(logits, split.mask_class[chosen], task)
    order = np.random.default_rng(seed).permutation(len(chosen))[:explained]
    few = np.sort(order)
    maps = _maps(path, twin, pixels[few], targets[few], task)
    units = units_of([split.groups[index] for index in chosen])
    labels = split.labels[chosen] if labelled else None
    return Reference(path, pixels, labels, units, task, logits, few, targets[few], maps, without_gradient)


def score(reference: Reference, path: Path, twin: Path | None) -> ScoreNote:
    """Return what a candidate's file keeps of the float file, each number with its 95 % interval over the images.

    Raises:
        StageError: a logit or a gradient is not finite.
    """
    return with_maps(score_answers(reference, path), reference, path, twin)


def score_answers(reference: Reference, path: Path) -> ScoreNote:
    """Return what a candidate's file keeps of the float file's answers, without a look at its maps.

    Raises:
        StageError: a logit is not finite.
    """
    session = open_session(path, "cpu", 1)
    logits = _on_all_cores(len(reference.images), lambda rows: predict(session, reference.images[rows], _BATCH_SIZE))
    answers, expected = decided(logits, reference.task), decided(reference.logits, reference.task)
    same = _right(answers, expected)
    evidence = {AGREEMENT: _paired(same, np.ones(len(same)), reference.units)}
    drop = None
    if reference.labels is not None:
        right, fp32s = _right(answers, reference.labels), _right(expected, reference.labels)
        drop = _mean(fp32s - right, reference.units, "identity")
        evidence[ACCURACY_DROP] = _paired(right, fp32s, reference.units)
    return ScoreNote(
        accuracy_drop=drop,
        agreement=_mean(same, reference.units, "logit"),
        logits_sqnr_db=_sqnr(logits, reference),
        saliency_spearman=None,
        evidence=evidence,
    )


def with_maps(found: ScoreNote, reference: Reference, path: Path, twin: Path | None) -> ScoreNote:
    """Return a score with how like the float file's maps those of the candidate are, by its twin or by occlusion.

    Raises:
        StageError: a gradient is not finite.
    """
    maps = _maps(path, twin, reference.images[reference.explained], reference.targets, reference.task)
    likeness, units = map_similarity.spearman(maps, reference.maps), reference.units[reference.explained]
    evidence = {**found.evidence, SALIENCY: _on_fishers_z(likeness, units)}
    return found.model_copy(update={"saliency_spearman": _mean(likeness, units, "fisher_z"), "evidence": evidence})


def speedup(reference: Path, candidate: Path, image: NDArray[np.uint8], rounds: int) -> Estimate:
    """Return the float file's latency over a candidate's: one thread, a query to each in every round.

    A query is one image, or as many copies of it as a fixed batch holds.

    For choosing between candidates; what is reported of the chosen file is measured in processes of their own.

    Args:
        reference: the float file.
        candidate: another file of the same input.
        image: uint8 [channels, height, width].
        rounds: at least 5; three more come before and do not count.
    """
    sessions = [open_session(path, "cpu", 1) for path in (reference, candidate)]
    seconds = np.array([[_seconds(session, image) for session in sessions] for _ in range(rounds + 3)])[3:]
    return _noted(ratios.paired_ratio_estimate(seconds[:, 0], seconds[:, 1], _RESAMPLES, 0))


def _seconds(session: InferenceSession, image: NDArray[np.uint8]) -> float:
    entry = session.get_inputs()[0]
    copies = entry.shape[0] if isinstance(entry.shape[0], int) else 1
    feed = {entry.name: session_preprocessing(session).to_input(np.repeat(image[None], copies, axis=0))}
    start = time.perf_counter()
    session.run(None, feed)
    return time.perf_counter() - start


def _right(answers: NDArray[np.integer], truth: NDArray[np.integer]) -> Floats:
    """Return 1 or 0 per image, or the share of its labels that are answered right."""
    right = (answers == truth).astype(np.float64)
    return cast("Floats", right if right.ndim == 1 else right.mean(axis=1))


def _maps(
    path: Path, twin: Path | None, images: NDArray[np.uint8], targets: Indices, task: Task
) -> NDArray[np.float32]:
    if twin is not None:
        opened = Twin(open_session(twin, "cpu", 1), _BATCH_SIZE)
        return _on_all_cores(len(images), lambda rows: gradient_maps(opened, images[rows], targets[rows]))
    return open_method("occlusion", ExplainedFiles(path), task, MapSettings(batch_size=_BATCH_SIZE))(images, targets)


def _on_all_cores(count: int, answer: Callable[[Indices], NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return what one image after the other is answered with, several at once; each by one thread, as on a device."""
    parts = np.array_split(np.arange(count), max(1, min(count, usable_cores())))
    with ThreadPoolExecutor(len(parts)) as threads:
        return np.concatenate(list(threads.map(answer, parts)))


def _paired(first: Floats, second: Floats, units: Indices) -> PairedDifference:
    return paired_shares(*(Decisions(values[None, None], units) for values in (first, second)))


def _on_fishers_z(likeness: Floats, units: Indices) -> PairedDifference:
    """Return the mean likeness as Fisher's z, whose Student bound errs in 0.3 to 0.4 % of 32 skewed maps at 0.2 %."""
    mean, count = float(likeness.mean()), unit_count(units)
    inside = float(np.clip(mean, -_NEARLY_ONE, _NEARLY_ONE))
    error = means.mean_error(likeness, units) / (1.0 - inside**2) if count > 1 else 0.0
    z = float(np.arctanh(inside))
    return PairedDifference(
        z, None, "cluster_t", n=len(likeness), units=count, standard_error=error, degrees=count - 1
    )


def _mean(values: Floats, units: Indices, scale: estimates.ScaleName) -> Estimate:
    return _noted(means.mean_estimate(values, _RESAMPLES, 0, units, scale))


def _sqnr(logits: NDArray[np.float32], reference: Reference) -> Estimate:
    n, sums = len(logits), metrics.sqnr_sums(logits, reference.logits)
    value = float(sums(np.ones((n, 1)))[0])
    interval = None
    if not too_few(reference.units):
        draws = resampled({0: sums}, reference.units, _RESAMPLES, 0)[0]
        interval = bootstrap_t_interval(value, draws, unit_count(reference.units), "identity")
    return Estimate(value=value, ci95=interval, n=n)


def _noted(found: estimates.Estimate) -> Estimate:
    return Estimate(value=found.value, ci95=found.ci95, n=found.n)
