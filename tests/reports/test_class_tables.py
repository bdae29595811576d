from __future__ import annotations

from small_run import small_record

from foundation.measurements import Measurement, Where
from foundation.run_folder import RunFolder
from reports.class_tables import class_tables, rare_sentence, subgroup_tables
from reports.facts import Facts, read_facts


def test_each_class_has_a_row_and_each_variant_a_column(reported_run: RunFolder) -> None:
    facts = read_facts(reported_run)
    sensitivity, specificity = class_tables(facts)
    assert [row.name for row in sensitivity.rows] == list(facts.record.classes)
    assert tuple(column.heading for column in sensitivity.columns) == facts.variant_names
    assert sensitivity.rows[0].detail == "6\N{NO-BREAK SPACE}images"
    assert specificity.rows[0].detail == "42\N{NO-BREAK SPACE}images of others"


def test_subgroup_accuracies_are_the_measurements() -> None:
    def accuracy(variant: str, value: float, n: int, subgroup: str | None = None) -> Measurement:
        where = Where("cpu", "test", subgroup=subgroup)
        return Measurement("accuracy", value, "share", variant, where, n, (value - 0.1, value + 0.1))

    facts = Facts(
        small_record(),
        measurements=(
            accuracy("fp32", 0.7, 48),
            accuracy("fp32", 0.8, 32, subgroup="white light"),
            accuracy("fp32", 0.5, 16, subgroup="narrow-band"),
            accuracy("fp16", 0.6, 32, subgroup="white light"),
        ),
    )
    (table,) = subgroup_tables(facts)
    assert [(row.name, row.detail[:2]) for row in table.rows] == [("narrow-band", "16"), ("white light", "32")]
    narrow, white = ([(cell.text[:4], cell.interval[:4]) for cell in row.cells] for row in table.rows)
    assert narrow == [("50.0", "40.0"), ("not ", "")]
    assert white == [("80.0", "70.0"), ("60.0", "50.0")]


def test_a_run_without_subgroups_has_no_such_table() -> None:
    whole = Measurement("accuracy", 0.9, "share", "fp32", Where("cpu", "test"), 10)
    assert subgroup_tables(Facts(small_record(), measurements=(whole,))) == ()


def test_labels_come_with_their_images_and_the_rare_ones_by_name(labelled_run: RunFolder) -> None:
    facts = read_facts(labelled_run)
    assert facts.data is not None
    positives = dict(zip(facts.record.classes, facts.data.test.labels.sum(axis=0), strict=True))
    tables = {table.key: table for table in class_tables(facts)}
    assert list(tables) == [
        *("class-auroc", "class-average_precision", "class-sensitivity", "class-specificity"),
        *("class-calibration_slope", "class-calibration_intercept"),
    ]
    auroc = {row.name: row for row in tables["class-auroc"].rows}
    assert auroc["Mass"].detail == f"{positives['Mass']}\N{NO-BREAK SPACE}images"
    assert auroc["Edema"].cells[0].reason == "only 6 positive images in the test split; min_positives asks for 10"
    specificity = tables["class-specificity"].rows[0].detail
    assert specificity == f"{200 - positives['Infiltration']}\N{NO-BREAK SPACE}images without"
    rare = [name for name, count in positives.items() if count < 10]
    said = rare_sentence(facts)
    assert [name in said for name in facts.record.classes] == [name in rare for name in facts.record.classes]
    assert "Edema (6 of 200)" in said


def test_a_run_of_classes_names_no_rare_labels(reported_run: RunFolder) -> None:
    assert rare_sentence(read_facts(reported_run)) == ""
