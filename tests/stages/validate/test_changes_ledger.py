from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from calibration_data.prepared import PreparedData
from stages.validate.answers import Predictions
from stages.validate.changes_ledger import ChangesLedger, changes_ledger, exact_sign_p

NOWHERE = Path("nowhere.npz")


def of_classes(variant: str, answers: list[int], labels: list[int]) -> Predictions:
    """A file that gives 0.8 to its answer and 0.1 to each of the two others."""
    shares = np.where(np.eye(3)[answers] == 1, 0.8, 0.1)
    return Predictions(variant, np.log(shares).astype(np.float32), np.array(labels), NOWHERE)


def data_of(stripes: PreparedData, images: int, groups: tuple[str, ...] | None = None) -> PreparedData:
    test = stripes.test
    cut = replace(
        test, labels=test.labels[:images], groups=groups or test.groups[:images], sha256=test.sha256[:images]
    )
    return replace(stripes, test=cut, groups_known=groups is not None)


@pytest.fixture
def ledger(stripes: PreparedData) -> ChangesLedger:
    """Six images of three patients: one broken, one mended, one wrong otherwise."""
    labels = [0, 1, 2, 0, 1, 2]
    fp32 = of_classes("fp32", [0, 1, 2, 1, 2, 2], labels)
    int8 = of_classes("int8", [1, 1, 2, 0, 0, 2], labels)
    return changes_ledger(fp32, {"int8": int8}, data_of(stripes, 6, ("Ann", "Ann", "Bob", "Bob", "Cy", "Cy")))


def test_every_changed_answer_is_told_with_both_sides(ledger: ChangesLedger, stripes: PreparedData) -> None:
    found = [(row.image, row.truth, row.fp32_answer, row.variant_answer, row.outcome) for row in ledger.rows]
    assert found == [
        (stripes.test.handle(0), "horizontal", "horizontal", "vertical", "broken"),
        (stripes.test.handle(3), "horizontal", "vertical", "horizontal", "mended"),
        (stripes.test.handle(4), "vertical", "diagonal", "horizontal", "otherwise"),
    ]
    assert ledger.rows[0].fp32_probability == pytest.approx(0.8, abs=1e-6)
    assert ledger.rows[0].variant_probability == pytest.approx(0.8, abs=1e-6)


def test_counts_are_of_images_and_of_patients(ledger: ChangesLedger) -> None:
    (counts,) = ledger.counts
    assert (counts.answers, counts.answers_changed, counts.images, counts.images_changed) == (6, 3, 6, 3)
    assert (counts.images_broken, counts.images_mended, counts.mcnemar_p) == (1, 1, 1.0)
    assert (counts.patients, counts.patients_changed) == (3, 3)
    assert (counts.patients_worse, counts.patients_better, counts.patients_p) == (1, 1, 1.0)


def test_no_name_of_an_image_or_a_patient_is_written(ledger: ChangesLedger, tmp_path: Path) -> None:
    table, document = tmp_path / "changes.csv", tmp_path / "changes.json"
    ledger.write(table, document)
    for text in (table.read_text(), document.read_text()):
        assert not any(name in text for name in ("Ann", "Bob", "Cy"))
    rows = list(csv.DictReader(table.read_text().splitlines()))
    patients = [row["patient"] for row in rows]
    assert len(set(patients)) == 3
    assert all(patient.startswith("sha256:") and len(patient) == 19 for patient in patients)
    stored = json.loads(document.read_text())
    assert [row["outcome"] for row in stored["changes"]] == [row["outcome"] for row in rows]
    assert stored["variants"][0]["images_broken"] == 1


def test_a_patient_is_called_by_the_images_and_not_by_a_name_that_can_be_guessed(stripes: PreparedData) -> None:
    fp32, int8 = (of_classes(name, [answer] * 2, [0, 0]) for name, answer in (("fp32", 0), ("int8", 1)))
    called = [
        changes_ledger(fp32, {"int8": int8}, data_of(stripes, 2, (name, name))).rows[0].patient
        for name in ("Ann", "MRN 007")
    ]
    content = json.dumps(sorted(stripes.test.sha256[:2]), separators=(",", ":"))
    assert called == [f"sha256:{hashlib.sha256(content.encode()).hexdigest()[:12]}"] * 2


def test_without_known_groups_there_are_no_patients(stripes: PreparedData) -> None:
    fp32, int8 = (of_classes(name, [answer], [0]) for name, answer in (("fp32", 0), ("int8", 1)))
    ledger = changes_ledger(fp32, {"int8": int8}, data_of(stripes, 1))
    assert ledger.rows[0].patient == ""
    assert (ledger.counts[0].patients, ledger.counts[0].patients_p) == (None, None)


def test_of_labels_an_image_changes_once_however_many_of_its_labels_do(stripes: PreparedData) -> None:
    """Ten images of three labels: 4 of 30 answers changed, 20 % of the images."""
    labels = np.zeros((10, 3), np.int64)
    before = np.full((10, 3), -2.0, np.float32)
    after = before.copy()
    after[0] = 2.0
    after[1, 2] = 2.0
    fp32, int8 = (Predictions(name, logits, labels, NOWHERE) for name, logits in (("fp32", before), ("int8", after)))
    ledger = changes_ledger(fp32, {"int8": int8}, data_of(stripes, 10))
    (counts,) = ledger.counts
    assert (counts.answers, counts.answers_changed, counts.images_changed, counts.images_broken) == (30, 4, 2, 2)
    assert counts.mcnemar_p == pytest.approx(0.5)
    last = ledger.rows[-1]
    assert (last.label, last.truth, last.fp32_answer, last.variant_answer) == ("diagonal", "no", "no", "yes")
    assert last.fp32_probability == pytest.approx(1 / (1 + np.exp(-2.0)))


def test_a_file_without_scores_has_no_probability(stripes: PreparedData) -> None:
    fp32 = of_classes("fp32", [0], [0])
    int8 = replace(of_classes("int8", [1], [0]), scored=False)
    row = changes_ledger(fp32, {"int8": int8}, data_of(stripes, 1)).rows[0]
    assert (row.fp32_probability, row.variant_probability) == (pytest.approx(0.8, abs=1e-6), None)


def test_a_name_that_a_table_programme_would_compute_stays_a_name(stripes: PreparedData, tmp_path: Path) -> None:
    fp32, int8 = (of_classes(name, [answer], [0]) for name, answer in (("fp32", 0), ("int8", 1)))
    data = replace(data_of(stripes, 1), classes=("=1+1", "b", "c"))
    changes_ledger(fp32, {"int8": int8}, data).write(tmp_path / "c.csv", tmp_path / "c.json")
    assert "'=1+1" in (tmp_path / "c.csv").read_text()


@pytest.mark.parametrize(
    ("worse", "better", "p"), [(0, 0, 1.0), (5, 0, 0.0625), (7, 0, 0.015625), (9, 2, 0.0654296875)]
)
def test_mcnemars_test_is_exact(worse: int, better: int, p: float) -> None:
    assert exact_sign_p(worse, better) == exact_sign_p(better, worse) == pytest.approx(p)
