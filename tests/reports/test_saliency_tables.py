from __future__ import annotations

import pytest
from small_run import small_record

from foundation.measurements import Measurement, Where
from foundation.metrics import METRICS, Definition, Metric
from foundation.run_folder import RunFolder
from reports.facts import Facts, read_facts
from reports.saliency_tables import saliency_tables

NARROW = "\N{NO-BREAK SPACE}"


def test_every_variant_has_a_row_and_the_maps_that_know_nothing_the_last(reported_run: RunFolder) -> None:
    facts = read_facts(reported_run)
    table, sizes, sanity = saliency_tables(facts)
    for one in (table, sizes):
        assert [row.name for row in one.rows] == [*facts.variant_names, "random map", "centre prior"]
    assert [row.name for row in sanity.rows] == ["occlusion"]
    assert table.caption == f"Saliency by occlusion, 48{NARROW}images"
    assert [column.heading for column in table.columns if column.group == "Faithfulness"] == [
        "Deletion AUC",
        "Insertion AUC",
    ]


def test_numbers_stand_in_their_own_cells(reported_run: RunFolder) -> None:
    """Each cell against the run's own measurement: fp32's deletion AUC, and small lesions apart from all of them."""
    facts = read_facts(reported_run)
    value = {(m.metric, m.variant, m.where.subgroup): m.value for m in facts.measurements}
    table, sizes, sanity = saliency_tables(facts)
    fp32 = table.rows[0].cells
    assert [cell.text for cell in fp32[:3]] == ["reference"] * 3
    assert float(fp32[3].text) == round(value["deletion_auc", "fp32", None], 3)
    small, medium = (value["mass_in_mask", "fp32", f"{size} lesions"] for size in ("small", "medium"))
    assert [cell.text[:4] for cell in sizes.rows[0].cells[3:5]] == [f"{100 * share:.1f}" for share in (small, medium)]
    assert float(sanity.rows[0].cells[0].text) == round(value["sanity_spearman", "fp32", None], 3)
    assert f"Small: at most 4.64 %, 10{NARROW}images." in sizes.legend


def test_each_method_has_its_own_table_with_the_variants_it_was_measured_on() -> None:
    measured = [
        Measurement("saliency_ssim", 0.5, "similarity", variant, Where(method=method))
        for method, variants in (("occlusion", ("fp16", "pact-int8")), ("smooth_grad", ("pact-int8",)))
        for variant in variants
    ]
    first, second = saliency_tables(Facts(small_record(), measurements=tuple(measured)))
    assert [row.name for row in first.rows] == ["fp16", "pact-int8"]
    assert [row.name for row in second.rows] == ["pact-int8"]
    assert second.caption == "Saliency by SmoothGrad"


def test_a_run_without_masks_says_why_it_has_no_columns_for_them() -> None:
    where = Where(method="gradient")
    reason = "none of the explained images has a mask"
    measured = (
        Measurement("saliency_ssim", 0.5, "similarity", "fp16", where),
        Measurement("deletion_auc", 0.2, "probability", "fp16", where),
        *(
            Measurement(metric, None, "share", "fp16", where, remarks={"reason": reason})
            for metric in ("pointing_game", "mass_in_mask", "iou_at_mask_area")
        ),
    )
    (table,) = saliency_tables(Facts(small_record(), measurements=measured))
    assert [column.heading for column in table.columns][3:] == ["Deletion AUC", "Insertion AUC"]
    assert f"How maps meet masks is not measured: {reason}." in table.legend


def test_too_few_masks_make_no_table_by_size() -> None:
    where = Where(method="gradient", subgroup="small lesions")
    row = Measurement("mass_in_mask", None, "share", "fp16", where, remarks={"reason": "only 4"})
    (table,) = saliency_tables(Facts(small_record(), measurements=(row,)))
    assert "by size" not in table.caption


def test_a_new_metric_of_maps_is_a_column_of_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    definition = Definition("as new as can be", "Novelty: how new.")
    row = Metric("share", True, "perturbed", "faithfulness", "Novelty", {"multi_class": definition})
    monkeypatch.setitem(METRICS, "novelty", row)
    measured = (Measurement("novelty", 0.5, "share", "fp16", Where(method="gradient")),)
    (table,) = saliency_tables(Facts(small_record(), measurements=measured))
    assert [column.heading for column in table.columns if column.group == "Faithfulness"][-1] == "Novelty"
    assert table.rows[0].cells[-1].text == "50.0\N{NARROW NO-BREAK SPACE}%"
    assert "Novelty: how new." in table.legend


def test_the_cascade_stands_step_by_step_for_the_methods_that_made_it() -> None:
    measured = [
        Measurement("cascade_spearman", value, "correlation", "fp32", Where(method="gradient", change=step))
        for step, value in (("top 1 of 4 layers", 0.5), ("top 4 of 4 layers", 0.125))
    ]
    measured.append(Measurement("saliency_ssim", 0.5, "similarity", "fp16", Where(method="occlusion")))
    tables = saliency_tables(Facts(small_record(), measurements=tuple(measured)))
    (cascade,) = (table for table in tables if table.key == "saliency-cascade")
    assert [row.name for row in cascade.rows] == ["top 1 of 4 layers", "top 4 of 4 layers"]
    assert [[cell.text for cell in row.cells] for row in cascade.rows] == [["0.500"], ["0.125"]]
    assert [column.heading for column in cascade.columns] == ["gradient"]


def test_a_tolerance_of_the_pointing_game_is_told() -> None:
    where = Where(method="gradient")
    measured = Measurement("pointing_game", 0.5, "share", "fp16", where, remarks={"tolerance_px": 3})
    (table,) = saliency_tables(Facts(small_record(), measurements=(measured,)))
    assert "The pointing game counts a peak within 3 px of the lesion too." in table.legend
