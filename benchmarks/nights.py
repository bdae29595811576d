"""How often a night is red: answers that flip to and fro, and a loss that is real. Speed has `nights_times.py`.

    python benchmarks/nights.py --nights 200               # every table
    python benchmarks/nights.py --nights 200 --only power  # power, files, flips, rounding, patients or exact
    python benchmarks/nights.py --without-scores           # files that give a class alone: a tenth of the time

Each night goes through the product's own functions: two runs' answers to the same images are paired by
`pipeline.judge.paired_runs` and judged by `pipeline.judge.comparison`. Answers are drawn. Losses are drawn too, image
by image: a right answer becomes wrong with the probability at which accuracy changes by −d points on average. The
nights of one number of images share their flips between the values of d, so that the rows of a table are not
independent of each other.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration_data.prepared import PreparedSplit
from foundation.errors import ExitCode
from foundation.measurements import Measurement, PairedDifference
from foundation.metrics import METRICS, row_name
from foundation.processor import Cpu
from foundation.record import FORMAT_VERSION, Environment, RunRecord
from pipeline.judge.comparison import SIGNIFICANT, Comparison, compare
from pipeline.judge.evidence import Evidence
from pipeline.judge.paired_runs import Key, PairedRuns, paired_differences, paired_with_fp32
from pipeline.judge.tolerances import ComparisonSettings
from stages.validate.accuracy import AccuracySettings
from stages.validate.answers import Predictions
from stages.validate.intervals.groups import units_of
from stages.validate.intervals.proportions import wilson_interval

CLASSES = ("a", "b", "c", "d")
SETTINGS = AccuracySettings(resamples=1000)
FLIPS = 0.004
"""Share of the answers that another rounding changes."""
LOSSES = (0.0, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05)
"""True losses of accuracy, as shares of all images."""
LOSSY = "int8"
"""The one file that loses."""
THREE = ("fp32", LOSSY, "fp16")
TEN = (*THREE, *(f"int8-{number}" for number in range(2, 9)))
_CPU = Cpu("synthetic", 2, (), None)


@dataclass(frozen=True)
class Images:
    """What a night is asked about.

    Attributes:
        count: test images.
        per_patient: images of each patient; its images are of one class.
        icc: intraclass correlation of the answers, the flips and the losses of a patient, 0 to 1.
        files: their names, "fp32" first.
        rounding: how far a file's logits lie from fp32's, as a share of the scatter of a logit.
        flips: share of a file's answers that differ from one night to the next by chance.
        are_scored: whether files give scores; what takes them is measured only then, and takes most of the time.
    """

    count: int
    per_patient: int = 1
    icc: float = 0.0
    files: tuple[str, ...] = THREE
    rounding: float = 0.0
    flips: float = FLIPS
    are_scored: bool = True


def split_of(labels: NDArray[np.int64], patients: Sequence[str]) -> PreparedSplit:
    """Return a test split without pixels.

    Args:
        labels: [n], the class of each image.
        patients: n names.
    """
    names = tuple(f"image {place}" for place in range(len(labels)))
    nothing = np.zeros((len(labels), 1, 1), np.bool_)
    no_mask = np.full(len(labels), -1, np.int64)
    pixels = np.zeros((len(labels), 1, 1, 1), np.uint8)
    groups, subgroups = tuple(patients), ((),) * len(labels)
    return PreparedSplit(pixels, labels, nothing, nothing[:, 0, 0], no_mask, names, groups, subgroups, names)


def sources(units: NDArray[np.int64], icc: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return which draw each image takes: its own, or the one that its patient's images have in common.

    With probability √icc an image takes the common one, so that two images of a patient have the same with
    probability icc: whatever is a function of the draw then has that intraclass correlation.

    Args:
        units: [n], the patient of each image, counted from 0.
        icc: 0 to 1.
        rng: of the night.

    Returns:
        int64 [n], indices into patients + n draws.
    """
    own = units.max() + 1 + np.arange(len(units))
    return np.where(rng.random(len(units)) < np.sqrt(icc), units, own)


def answers(
    labels: NDArray[np.int64], source: NDArray[np.int64], draws: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return logits of which about 19 in 20 are right, float32 [n, classes].

    Args:
        labels: [n].
        source: see `sources`.
        draws: how many `source` counts.
        rng: of the night.
    """
    logits = rng.normal(0.0, 1.0, (draws, len(CLASSES)))[source]
    logits[np.arange(len(labels)), labels] += 2.9
    return logits.astype(np.float32)


def flipped(logits: NDArray[np.float32], share: float, uniform: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return logits of which a share of the images has first and second answer exchanged, where these are close.

    Another rounding flips what is near a tie: each of the closest eighth of the images is as likely.

    Args:
        logits: float32 [n, classes].
        share: of all images, at most an eighth.
        uniform: [n], a draw from 0…1 of each image.
    """
    changed = logits.copy()
    ranked = np.sort(logits, axis=1)
    near = np.argsort(ranked[:, -1] - ranked[:, -2])[: len(logits) // 8]
    for place in near[uniform[near] < share * len(logits) / len(near)]:
        first, second = np.argsort(-changed[place])[:2]
        changed[place, [first, second]] = changed[place, [second, first]]
    return changed


def broken(
    logits: NDArray[np.float32], labels: NDArray[np.int64], loss: float, uniform: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return logits that lost right answers by chance: the accuracy changes by −loss on average.

    Args:
        logits: float32 [n, classes].
        labels: [n].
        loss: as a share of all images, at most that of the right ones.
        uniform: [n], a draw from 0…1 of each image.
    """
    changed, right = logits.copy(), logits.argmax(axis=1) == labels
    for place in np.flatnonzero(right & (uniform < loss / right.mean())):
        changed[place, (labels[place] + 1) % len(CLASSES)] = changed[place].max() + np.float32(0.5)
    return changed


def night(images: Images, losses: Sequence[float], seed: int) -> dict[float, dict[Key, PairedDifference]]:
    """Return what changed since the accepted run, once for each true loss of one file; all else is the same night.

    Args:
        images: what is asked.
        losses: of `LOSSY`, as shares of all images.
        seed: of the night.
    """
    rng, errors = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    patients = [f"patient {place // images.per_patient}" for place in range(images.count)]
    units = units_of(patients)
    labels = units % len(CLASSES)
    test, draws = split_of(labels, patients), images.count + int(units.max()) + 1
    source = sources(units, images.icc, rng)
    own = answers(labels, source, draws, rng)

    def run(files: Mapping[str, NDArray[np.float32]], share: float) -> dict[str, Predictions]:
        changed = {name: flipped(logits, share, rng.random(draws)[source]) for name, logits in files.items()}
        return {
            name: Predictions(name, logits, labels, Path(), images.are_scored) for name, logits in changed.items()
        }

    # The files differ from each other by a hundredth of the answers; and each night flips its own answers of a
    # file, so that two nights differ by twice as many.
    files = {name: one.logits for name, one in run(dict.fromkeys(images.files, own), 0.01).items()}
    for name in images.files[1:]:
        files[name] = files[name] + np.float32(images.rounding) * errors.standard_normal(own.shape, np.float32)
    before, after = run(files, images.flips / 2), run(files, images.flips / 2)
    uniform = rng.random(draws)[source]

    def changes(name: str, now: Predictions) -> dict[Key, PairedDifference]:
        pair = (before[name], now)
        found = paired_differences(pair, test, CLASSES, SETTINGS)
        if name != "fp32":
            found |= paired_with_fp32(pair, (before["fp32"], after["fp32"]), test.groups, SETTINGS)
        return found

    others: dict[Key, PairedDifference] = {}
    for name in images.files:
        others |= changes(name, after[name]) if name != LOSSY else {}
    lossy = {loss: broken(after[LOSSY].logits, labels, loss, uniform) for loss in losses}
    return {loss: others | changes(LOSSY, replace(after[LOSSY], logits=logits)) for loss, logits in lossy.items()}


def judged(differences: Mapping[Key, PairedDifference], are_paired: bool = True) -> Comparison:
    """Return how the product judges a night.

    What a tolerance of answers allows is absolute, so that the difference decides alone: the accepted run's numbers
    are put down as 0.

    Args:
        differences: of the night.
        are_paired: whether the answers of the accepted run are at hand; else the tolerances decide.
    """
    settings = ComparisonSettings()
    assert all(settings.tolerance(metric).kind == "absolute" for metric, _, _ in differences)
    now = [
        Measurement(metric, one.value, METRICS[row_name(metric)].unit, variant, where, one.n)
        for (metric, variant, where), one in differences.items()
    ]
    then = [replace(one, value=0.0) for one in now]
    runs = (Evidence("night", record(), tuple(measurements)) for measurements in (then, now))
    return compare(*runs, settings, PairedRuns(differences) if are_paired else None)


def share(hits: Sequence[bool]) -> str:
    """Return the share of nights in per cent with Wilson's 95 % interval."""
    low, high = wilson_interval(sum(hits), len(hits))
    return f"{100 * np.mean(hits):.1f} % ({100 * low:.1f}–{100 * high:.1f})"


def is_red(comparison: Comparison) -> bool:
    """Return whether a night is red by any of its rows."""
    return comparison.exit_code != ExitCode.PASSED


def lost_accuracy(comparison: Comparison) -> bool:
    """Return whether the accuracy of the one file that may lose is among what regressed."""
    own = (one for one in comparison.differences if (one.metric, one.variant) == ("accuracy", LOSSY))
    return any(one.status == "regressed" for one in own)


def print_nights(cases: Sequence[Images], losses: Sequence[float], nights: int) -> None:
    """Print the share of red nights of each case at each true loss, one row each.

    Args:
        cases: what is asked.
        losses: as shares of all images.
        nights: how many of each.
    """
    print(
        "\n| images | patients | files | flips, % | loss, points | red by its accuracy | by any row | by tolerance |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | --- | --- | --- |")
    for images in cases:
        found: dict[float, list[tuple[bool, bool, bool]]] = {loss: [] for loss in losses}
        for seed in range(nights):
            for loss, differences in night(images, losses, seed).items():
                paired = judged(differences)
                by_tolerance = is_red(judged(differences, are_paired=False))
                found[loss].append((lost_accuracy(paired), is_red(paired), by_tolerance))
        patients = images.count // images.per_patient if images.per_patient > 1 else "–"
        for loss, reds in found.items():
            shares = " | ".join(share(kind) for kind in zip(*reds, strict=True))
            asked = f"{images.count} | {patients} | {len(images.files)} | {100 * images.flips:g}"
            print(f"| {asked} | {100 * loss:g} | {shares} |", flush=True)


def exact_power(n: int, loss: float, alpha: float, is_randomised: bool) -> float:
    """Return the power of McNemar's exact one-sided test at a true loss, by summing over every outcome.

    Randomised at its limit it is the most powerful of all unbiased tests (Lehmann and Romano 2005, Testing
    Statistical Hypotheses, 4.5), so that none with this error rate is red more often.

    Args:
        n: independent images.
        loss: true loss, as a share of all images; `FLIPS` come to it.
        alpha: one-sided error rate.
        is_randomised: whether the error rate is used up by a draw where an outcome lies on the limit.
    """
    from scipy.stats import binom

    gained, lost = FLIPS / 2, loss + FLIPS / 2
    power = 0.0
    for discordant in range(n + 1):
        weight = float(binom.pmf(discordant, n, gained + lost))
        if weight < 1e-12:
            continue
        counts = np.arange(discordant + 1)
        tails = binom.sf(counts - 1, discordant, 0.5)
        truth = binom.pmf(counts, discordant, lost / (gained + lost))
        is_found = tails <= alpha
        power += weight * float(truth[is_found].sum())
        if is_randomised:
            limit = int(np.flatnonzero(is_found)[0]) - 1 if is_found.any() else discordant
            used = float(tails[limit + 1]) if is_found.any() else 0.0
            at_limit = float(binom.pmf(limit, discordant, 0.5))
            power += weight * float(truth[limit]) * (alpha - used) / at_limit
    return power


def images_needed(loss: float, alpha: float, power: float) -> int:
    """Return from how many images on the exact test, not randomised, has this power, to 2 %.

    Args:
        loss: true loss, as a share of all images.
        alpha: one-sided error rate.
        power: 0 to 1.
    """
    n = 50
    while exact_power(n, loss, alpha, is_randomised=False) < power:
        n = math.ceil(1.02 * n)
    return n


def print_exact() -> None:
    """Print the power that an exact test has at a true loss of 3 points, alone and as the first step of Holm's."""
    loss = 0.03
    print("\n| images | rows of Holm | exact test | the most powerful one | images for 95 % |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for rows in (1, len(THREE), len(TEN)):
        needed = images_needed(loss, SIGNIFICANT / rows, 0.95)
        for n in (224, 500, 1000):
            powers = [exact_power(n, loss, SIGNIFICANT / rows, is_randomised) for is_randomised in (False, True)]
            print(f"| {n} | {rows} | {100 * powers[0]:.1f} % | {100 * powers[1]:.1f} % | {needed} |", flush=True)


def record() -> RunRecord:
    """Return the record of a run that was none."""
    environment = Environment(None, "3", "synthetic", _CPU, {}, ("cpu",), None)
    return RunRecord(
        name="night",
        configuration={},
        configuration_sha256="0" * 64,
        gates_sha256="0" * 64,
        dataset="synthetic",
        environment=environment,
        task="multi_class",
        synthetic=True,
        classes=CLASSES,
        variants=(),
        stages=(),
        verdicts=(),
        exit_code=ExitCode.PASSED,
        format_version=FORMAT_VERSION,
    )


def main() -> None:
    """Print the share of red nights for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=200, help="of each row")
    parser.add_argument(
        "--only", choices=("power", "files", "flips", "rounding", "patients", "exact"), help="one of the tables"
    )
    parser.add_argument("--without-scores", action="store_true", help="only the rows that take no scores")
    asked = parser.parse_args()
    tables = {
        "power": ([Images(count) for count in (224, 500, 1000)], LOSSES),
        "files": ([Images(224, files=TEN)], (0.0, 0.03)),
        "flips": ([Images(224, flips=5 * FLIPS)], (0.0, 0.03)),
        "rounding": ([Images(224, rounding=0.03)], (0.0, 0.03)),
        "patients": ([Images(count, 4, 0.5, rounding=0.03) for count in (224, 1000)], (0.0, 0.03, 0.05)),
    }
    for name, (cases, losses) in tables.items():
        if asked.only in (None, name):
            print_nights([replace(one, are_scored=not asked.without_scores) for one in cases], losses, asked.nights)
    if asked.only in (None, "exact"):
        print_exact()


if __name__ == "__main__":
    main()
