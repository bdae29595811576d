"""How often a night is red: unchanged answers that flip to and fro, a loss that is real, everything slower.

    python benchmarks/nights.py --nights 200

Each night goes through the product's own comparison: two runs' answers to the same images, measured, paired and held
against each other by the tests of `pipeline.judge.comparison`. Answers and times are synthetic.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration_data.prepared import PreparedSplit
from foundation.errors import ExitCode
from foundation.measurements import Measurement, Where
from foundation.processor import Cpu
from foundation.record import FORMAT_VERSION, Environment, RunRecord
from pipeline.judge.comparison import Comparison, compare
from pipeline.judge.evidence import Evidence
from pipeline.judge.paired_runs import PairedRuns, paired_differences, paired_with_fp32
from pipeline.judge.tolerances import ComparisonSettings
from stages.validate.accuracy import AccuracySettings, measure_accuracy
from stages.validate.answers import Predictions

CLASSES = ("a", "b", "c", "d")
VARIANTS = ("fp32", "int8", "fp16")
SETTINGS = AccuracySettings(resamples=1000)
FLIPS = 0.004
_CPU = Cpu("synthetic", 2, (), None)
_KERNEL = Where(provider="cpu", split="test", threads=1, batch_size=1)


def split_of(labels: NDArray[np.int64]) -> PreparedSplit:
    """Return a test split of so many images without pixels, each of its own patient."""
    names = tuple(f"image {place}" for place in range(len(labels)))
    nothing = np.zeros((len(labels), 1, 1), np.bool_)
    no_mask = np.full(len(labels), -1, np.int64)
    pixels = np.zeros((len(labels), 1, 1, 1), np.uint8)
    return PreparedSplit(pixels, labels, nothing, nothing[:, 0, 0], no_mask, names, names, ((),) * len(labels), names)


def answers(labels: NDArray[np.int64], seed: int) -> NDArray[np.float32]:
    """Return logits that are right nine times in ten."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0.0, 1.0, (len(labels), len(CLASSES))).astype(np.float32)
    logits[np.arange(len(labels)), labels] += np.float32(2.9)
    return logits


def flipped(logits: NDArray[np.float32], share: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return logits of which a share of the images has first and second answer exchanged, where these are close.

    Another rounding flips what is near a tie: each of the closest eighth of the images is as likely.
    """
    changed = logits.copy()
    ranked = np.sort(logits, axis=1)
    near = np.argsort(ranked[:, -1] - ranked[:, -2])[: len(logits) // 8]
    for place in near[rng.random(len(near)) < share * len(logits) / len(near)]:
        first, second = np.argsort(-changed[place])[:2]
        changed[place, [first, second]] = changed[place, [second, first]]
    return changed


def broken(
    logits: NDArray[np.float32], labels: NDArray[np.int64], share: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return logits that lost the right answer on a share of all images, of those that were right."""
    changed = logits.copy()
    right = np.flatnonzero(logits.argmax(axis=1) == labels)
    for place in rng.choice(right, round(share * len(labels)), replace=False):
        others = [index for index in range(len(CLASSES)) if index != labels[place]]
        changed[place, rng.choice(others)] = changed[place].max() + np.float32(0.5)
    return changed


def evidence(predictions: dict[str, Predictions], test: PreparedSplit, against_kernel: float) -> Evidence:
    """Return the measurements of one run."""
    measurements: list[Measurement] = []
    for variant, own in predictions.items():
        fp32 = None if variant == "fp32" else predictions["fp32"].logits
        measurements += measure_accuracy(
            variant, own.logits, own.labels, CLASSES, fp32, test.groups, test.subgroups, SETTINGS
        )
        interval = (against_kernel * 0.97, against_kernel * 1.03)
        measurements.append(Measurement("latency_against_kernel", against_kernel, "×", variant, _KERNEL, 5, interval))
    return Evidence("night", _record(), tuple(measurements))


def one_night(
    n: int, loss: float, against_kernel: float, seed: int, flips: float = FLIPS
) -> tuple[Comparison, Comparison]:
    """Return how tonight compares with the accepted run, paired, and by fixed tolerances alone.

    Args:
        n: test images.
        loss: share of all images of which `int8` lost the right answer.
        against_kernel: speed of every file against the calibration kernel; the accepted run's is 1.
        seed: of the night.
        flips: share of each file's answers that change by chance.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(n, dtype=np.int64) % len(CLASSES)
    test = split_of(labels)
    own = answers(labels, seed)
    files = {name: flipped(own, 0.01, rng) for name in VARIANTS}
    # Each night flips its own answers of a file, so that two nights differ by twice as many.
    before, after = (
        {name: Predictions(name, flipped(logits, flips / 2, rng), labels, Path()) for name, logits in files.items()}
        for _ in range(2)
    )
    after["int8"] = replace(after["int8"], logits=broken(after["int8"].logits, labels, loss, rng))
    differences = {}
    for name in VARIANTS:
        pair = (before[name], after[name])
        differences |= paired_differences(pair, test, CLASSES, SETTINGS)
        if name != "fp32":
            fp32s = (before["fp32"], after["fp32"])
            differences |= paired_with_fp32(pair, fp32s, test.groups, SETTINGS)
    accepted, tonight = evidence(before, test, 1.0), evidence(after, test, against_kernel)
    settings = ComparisonSettings()
    paired = compare(accepted, tonight, settings, PairedRuns(differences))
    return paired, compare(accepted, tonight, settings)


def red(nights: int, n: int, loss: float, against_kernel: float) -> tuple[float, float]:
    """Return the share of nights that are red, by paired tests and by fixed tolerances."""
    found = [one_night(n, loss, against_kernel, seed) for seed in range(nights)]
    shares = [np.mean([one.exit_code != ExitCode.PASSED for one in kind]) for kind in zip(*found, strict=True)]
    return float(shares[0]), float(shares[1])


def _record() -> RunRecord:
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
    parser.add_argument("--nights", type=int, default=200)
    asked = parser.parse_args()
    print("| images | case | red, paired tests | red, fixed tolerances |\n| ---: | --- | ---: | ---: |")
    for n, name, loss, speed in (
        (224, "0.4 % of the answers flip", 0.0, 1.0),
        (224, "and int8 loses 3 points", 0.03, 1.0),
        (224, "and every file is 2 × slower than the kernel says", 0.0, 0.5),
        (500, "and int8 loses 3 points", 0.03, 1.0),
        (1000, "0.4 % of the answers flip", 0.0, 1.0),
    ):
        started = time.perf_counter()
        paired, fixed = red(asked.nights, n, loss, speed)
        print(f"| {n} | {name} | {paired:.1%} | {fixed:.1%} |", flush=True)
        print(f"{time.perf_counter() - started:.0f} s", flush=True) if asked.nights < 20 else None


if __name__ == "__main__":
    main()
