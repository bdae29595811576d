"""How often intervals hold the truth, and how often non-inferiority is shown where there is none, by simulation.

`python benchmarks/coverage.py --repetitions 1000` prints the tables of docs/statistics.md. A patient's images share a
normal effect whose correlation is the ICC; a share, an area and a likeness are made of the same values.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from stages.validate.intervals import means, paired, proportions, ranks, resampling
from stages.validate.intervals.estimates import Interval
from stages.validate.metrics import area_under_precision_recall, precision_recall_sums

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
Draw = Callable[[np.random.Generator, Indices, float], tuple[Interval | None, float]]

CELLS: tuple[tuple[int, int | None, float], ...] = (
    *((n, None, 0.0) for n in (30, 100, 500)),
    *(
        (n, patients, icc)
        for n, patients in ((30, 6), (30, 10), (100, 20), (500, 20), (500, 100))
        for icc in (0, 0.3, 0.8)
    ),
)  # fmt: skip


def correlated(rng: np.random.Generator, units: Indices, icc: float) -> Floats:
    """Return standard normal values [n], correlated by the ICC within a unit."""
    shared = rng.normal(size=int(units.max()) + 1)[units]
    return np.asarray(np.sqrt(icc) * shared + np.sqrt(1 - icc) * rng.normal(size=len(units)))


def share(truth: float) -> Draw:
    """Return what draws a share of right answers."""

    def draw(rng: np.random.Generator, units: Indices, icc: float) -> tuple[Interval | None, float]:
        right = (correlated(rng, units, icc) < NormalDist().inv_cdf(truth)).astype(np.float64)
        return proportions.share_interval(proportions.Decisions(right[None, None], units)), truth

    return draw


def area(truth: float) -> Draw:
    """Return what draws an AUROC of binormal scores; a patient has one class, as often one as the other."""
    shift = np.sqrt(2) * NormalDist().inv_cdf(truth)

    def draw(rng: np.random.Generator, units: Indices, icc: float) -> tuple[Interval | None, float]:
        positive = (rng.permutation(int(units.max()) + 1) % 2 == 0)[units]
        found = ranks.area_of(correlated(rng, units, icc) + shift * positive, positive, units)
        enough = len(np.unique(units)) >= 10
        return (ranks.auroc_interval(found, units) if enough else None), truth

    return draw


def precision(rng: np.random.Generator, units: Indices, icc: float) -> tuple[Interval | None, float]:
    """Draw an average precision: a third of the patients has the class, scores 1.5 higher (truth 0.812)."""
    count = int(units.max()) + 1
    positive = (rng.permutation(count) % 3 == 0)[units]
    scores = correlated(rng, units, icc) + 1.5 * positive
    draws = resampling.resampled({0: precision_recall_sums(scores, positive)}, units, 200, 0)[0]
    value = float(area_under_precision_recall(scores, positive, np.ones((1, len(units))))[0])
    return (resampling.bootstrap_t_interval(value, draws, count, "logit") if count >= 10 else None), PRECISION


def _true_precision() -> float:
    rng = np.random.default_rng(0)
    positive = np.arange(600_000) % 3 == 0
    scores = rng.normal(size=len(positive)) + 1.5 * positive
    return float(area_under_precision_recall(scores, positive, np.ones((1, len(positive))))[0])


PRECISION = _true_precision()


def likeness(rng: np.random.Generator, units: Indices, icc: float) -> tuple[Interval | None, float]:
    """Draw a mean of skewed correlations, 1 − 0.1·χ²: mean 0.9."""
    values = 1 - 0.1 * np.minimum(correlated(rng, units, icc) ** 2, 19)
    return means.studentised_interval(values, units, "fisher_z", 1000, 0), 0.9


def noninferiority(truth: float) -> Draw:
    """Return what draws a difference; the margin is 0.05, and an interval that holds it stands for a passed gate."""

    def draw(rng: np.random.Generator, units: Indices, icc: float) -> tuple[Interval | None, float]:
        flips = correlated(rng, units, icc)
        lost, gained = flips < NormalDist().inv_cdf(0.06), flips > NormalDist().inv_cdf(0.94 - truth)
        both = (proportions.Decisions((~one).astype(np.float64)[None, None], units) for one in (lost, gained))
        found = paired.bounds(paired.paired_shares(*both), 0.05)
        return (None if found is None else (-1.0, found[0])), -0.05

    return draw


def rate(draw: Draw, cell: tuple[int, int | None, float], repetitions: int) -> str:
    """Return how often intervals hold the truth; "–" where none is given."""
    n, patients, icc = cell
    units = np.arange(n) if patients is None else np.arange(n) % patients
    rng = np.random.default_rng(17)
    held = given = 0
    for _ in range(repetitions):
        interval, truth = draw(rng, units, icc)
        given += interval is not None
        held += interval is not None and interval[0] <= truth <= interval[1]
    return f"{held / given:.3f}".lstrip("0") if given else "–"


def table(columns: dict[str, Draw], repetitions: int) -> Iterator[str]:
    """Yield the lines of a table, a row per cell."""
    yield "| images | patients | ICC | " + " | ".join(columns) + " |"
    yield "| ---: | ---: | ---: |" + " ---: |" * len(columns)
    for cell in CELLS:
        n, patients, icc = cell
        rates = (rate(draw, cell, repetitions) for draw in columns.values())
        yield f"| {n} | {patients or '–'} | {icc:g} | " + " | ".join(rates) + " |"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=1000)
    repetitions = parser.parse_args().repetitions
    intervals: dict[str, Draw] = {
        "share .8": share(0.8), "share .95": share(0.95), "AUROC .8": area(0.8), "AUROC .95": area(0.95),
        "AUROC .99": area(0.99), "average precision": precision, "likeness": likeness,
    }  # fmt: skip
    gates: dict[str, Draw] = {"truth at the margin": noninferiority(-0.05), "no difference": noninferiority(0.0)}
    for columns in (gates, intervals):
        for line in table(columns, repetitions):
            print(line, flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
