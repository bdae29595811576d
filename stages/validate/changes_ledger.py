"""The ledger of changed answers: each one, by variant, with what fp32 said of the same image; complete, and nameless.

An image stands under its handle, the beginning of the digest of its file, and a patient under one of the same form:
a digest over those of the patient's test images, not over a name, which could be guessed. Whoever holds the images
finds both again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration_data.prepared import PreparedData, PreparedSplit
from foundation.answer_documents import LedgerCounts, LedgerRow, Outcome
from foundation.comma_separated import csv_text
from foundation.files import JSON, sha256_of_json, write_json, write_text
from stages.validate.answers import Predictions, decided, probabilities

FORMAT_VERSION = 1


@dataclass(frozen=True)
class ChangesLedger:
    """Counts of every variant, and all changed answers in the order of variants and images."""

    counts: tuple[LedgerCounts, ...]
    rows: tuple[LedgerRow, ...]

    def write(self, table: Path, document: Path) -> None:
        """Write the rows as comma-separated values, and counts and rows as JSON."""
        header = [field.name for field in fields(LedgerRow)]
        write_text(
            table, csv_text(header, ([_rounded(value) for value in asdict(row).values()] for row in self.rows))
        )
        counts: list[JSON] = [asdict(one) for one in self.counts]
        rows: list[JSON] = [asdict(row) for row in self.rows]
        write_json(document, {"format_version": FORMAT_VERSION, "variants": counts, "changes": rows})


def changes_ledger(fp32: Predictions, others: Mapping[str, Predictions], data: PreparedData) -> ChangesLedger:
    """Return every answer of the variants that is not fp32's.

    Args:
        fp32: the baseline's answers to the test split.
        others: variant → its answers to the same images.
        data: the images, for their handles and their patients.
    """
    patients = _patients(data.test) if data.groups_known else ()
    counts, rows = [], list[LedgerRow]()
    for variant, predictions in others.items():
        counts.append(_counts(variant, fp32, predictions, patients))
        rows += _rows(variant, fp32, predictions, data, patients)
    return ChangesLedger(tuple(counts), tuple(rows))


def exact_sign_p(worse: int, better: int) -> float:
    """Return the exact two-sided p that worse and better are equally likely; 1 where nothing changed.

    Over images this is McNemar's exact test (McNemar 1947, Psychometrika 12:153).
    """
    from scipy.stats import binomtest

    return float(binomtest(worse, worse + better).pvalue) if worse + better else 1.0


def _counts(variant: str, fp32: Predictions, other: Predictions, patients: Sequence[str]) -> LedgerCounts:
    before, after = (decided(one.logits, one.task) for one in (fp32, other))
    moved = before != after
    changed, was_wrong, is_wrong = (_any(one) for one in (moved, before != fp32.labels, after != fp32.labels))
    broken, mended = ~was_wrong & is_wrong, was_wrong & ~is_wrong
    worse = better = touched = None
    if patients:
        _, of = np.unique(np.array(patients), return_inverse=True)
        gained = np.bincount(of, weights=mended.astype(np.float64) - broken.astype(np.float64))
        worse, better = int((gained < 0).sum()), int((gained > 0).sum())
        touched = int((np.bincount(of, weights=changed) > 0).sum())
    return LedgerCounts(
        variant=variant,
        answers=moved.size,
        answers_changed=int(moved.sum()),
        images=len(changed),
        images_changed=int(changed.sum()),
        images_broken=int(broken.sum()),
        images_mended=int(mended.sum()),
        mcnemar_p=exact_sign_p(int(broken.sum()), int(mended.sum())),
        patients=len(set(patients)) if patients else None,
        patients_changed=touched,
        patients_worse=worse,
        patients_better=better,
        patients_p=None if worse is None or better is None else exact_sign_p(worse, better),
    )


def _rows(
    variant: str, fp32: Predictions, other: Predictions, data: PreparedData, patients: Sequence[str]
) -> list[LedgerRow]:
    task = fp32.task
    before, after = (decided(one.logits, task) for one in (fp32, other))
    shares = [probabilities(one.logits, task) if one.scored else None for one in (fp32, other)]
    rows = []
    for place in np.argwhere(before != after):
        at = tuple(int(index) for index in place)
        answers = (int(fp32.labels[at]), int(before[at]), int(after[at]))
        truth, old, new = (_name(answer, data.classes, task == "multi_class") for answer in answers)
        probability = [
            None if share is None else _probability(share, at, answer)
            for share, answer in zip(shares, answers[1:], strict=True)
        ]
        rows.append(
            LedgerRow(
                variant=variant,
                image=data.test.handle(at[0]),
                patient=patients[at[0]] if patients else "",
                label=data.classes[at[1]] if len(at) > 1 else "",
                truth=truth,
                fp32_answer=old,
                variant_answer=new,
                fp32_probability=probability[0],
                variant_probability=probability[1],
                outcome=_outcome(*answers),
            )
        )
    return rows


def _outcome(truth: int, before: int, after: int) -> Outcome:
    if after == truth:
        return "mended"
    return "broken" if before == truth else "otherwise"


def _probability(shares: NDArray[np.float64], at: tuple[int, ...], answer: int) -> float:
    """Return the probability that a file gives to an answer, of a class or of yes or no to a label."""
    if len(at) == 1:
        return float(shares[at[0], answer])
    return float(shares[at] if answer else 1.0 - shares[at])


def _name(answer: int, classes: Sequence[str], is_class: bool) -> str:
    return classes[answer] if is_class else ("no", "yes")[answer]


def _any(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return per image whether something holds of it, or of one of its labels."""
    return np.asarray(flags.reshape(len(flags), -1).any(axis=1), dtype=np.bool_)


def _patients(test: PreparedSplit) -> tuple[str, ...]:
    """Return the handle of each image's patient."""
    digests: dict[str, list[str]] = {}
    for group, digest in zip(test.groups, test.sha256, strict=True):
        digests.setdefault(group, []).append(digest)
    handles = {group: sha256_of_json(sorted(found))[:12] for group, found in digests.items()}
    return tuple(f"sha256:{handles[group]}" for group in test.groups)


def _rounded(value: str | float | None) -> str | None:
    return f"{value:.6f}" if isinstance(value, float) else value
