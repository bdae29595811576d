"""What the parts of the page say: gaps, statements, glossary, lineage, ledger, curves, multiples."""

from __future__ import annotations

import json
from dataclasses import replace

from small_run import small_record

from calibration_data.flow import data_flow
from foundation.measurements import Measurement, Where
from foundation.metrics import METRICS
from foundation.run_folder import RunFolder
from reports.curves_section import class_curves, history_figures, reliability_figures
from reports.facts import Facts, read_facts
from reports.gallery import gallery
from reports.glossary import SOURCES, glossary, term_id
from reports.html import quoted, ticked
from reports.ledger import MOST_CLASSES, confusions, ledger
from reports.lineage import lineage
from reports.multiples import front, multiples
from reports.not_covered import gaps
from reports.statements import claim, sanity_sentences, statements


def test_every_metric_has_a_formula_and_a_source() -> None:
    assert set(SOURCES) == set(METRICS)
    assert all(formula and source for formula, source in SOURCES.values())
    assert term_id("auroc/polyp") == "term-auroc"
    assert len({term_id(name) for name in METRICS}) == len(METRICS)


def test_the_glossary_holds_what_the_run_measured(reported_run: RunFolder) -> None:
    facts = read_facts(reported_run)
    keys = [term.key for term in glossary(facts)]
    assert keys[:3] == ["term-accuracy", "term-balanced-accuracy", "term-auroc-macro"]
    assert "term-robust-accuracy" not in keys


def test_the_checklist_has_44_items_and_answers_only_what_is_there(reported_run: RunFolder) -> None:
    bare = claim(Facts(small_record()))
    assert [item.number for item in bare] == list(range(1, 45))
    answered = {item.item for item in bare if item.section}
    assert "Goal of the study" not in answered
    assert "Data sources" not in answered
    facts = read_facts(reported_run)
    told = {item.item: item.section for item in claim(facts)}
    assert told["Data sources"] == told["Level at which partitions are disjoint"] == "data"
    assert told["Funding"] == told["Goal of the study"] == ""
    page = (reported_run.report / "index.html").read_text(encoding="utf-8")
    assert [section for section in told.values() if section and f'id="{section}"' not in page] == []


def test_the_words_of_the_user_stand_or_are_not_stated() -> None:
    record = small_record(configuration={"report": {"author": "A. Author", "population": "  "}})
    said = {one.name: (one.text, one.stated) for one in statements(Facts(record))}
    assert said["Author"] == ("A. Author", True)
    assert said["Population"] == said["Intended use"] == ("not stated", False)


def test_gaps_are_gathered_by_their_reason_and_say_what_would_mend_them() -> None:
    def absent(metric: str, variant: str, reason: str, subgroup: str | None = None) -> Measurement:
        where = Where("cpu", "test", subgroup=subgroup)
        return Measurement(metric, None, "share", variant, where, remarks={"reason": reason})

    few = "only 4 positive images in the subgroup 'a'; min_positives asks for 10"
    measured = (
        absent("auroc/x", "fp32", few, "a"),
        absent("auroc/y", "int8", few.replace("4", "3"), "b"),
        absent("pointing_game", "int8", "no image has a mask"),
        absent("agreement", "fp32", "fp32 is the reference itself"),
    )
    found = {gap.reason: gap for gap in gaps(Facts(small_record(), measurements=measured))}
    assert "fp32 is the reference itself" not in found
    subgroups = next(gap for reason, gap in found.items() if "in these subgroups" in reason)
    assert (subgroups.count, subgroups.what, subgroups.whose) == (2, "AUROC", "fp32, int8; x, y; a, b")
    assert found["no image has a mask"].mend == "a data set with masks"
    assert {"Answers on worse images", "Other devices"} <= {gap.what for gap in found.values()} | {
        gap.what for gap in gaps(Facts(small_record(), measurements=measured))
    }


def test_the_lineage_leads_from_the_images_to_the_files(reported_run: RunFolder) -> None:
    top = lineage(read_facts(reported_run))
    (checkpoint,) = top.children
    assert (top.kind, checkpoint.kind) == ("images, masks and labels", "trained network")
    fp32, pact = checkpoint.children
    assert (fp32.name, pact.name) == ("fp32", "pact-int8")
    assert [child.name for child in fp32.children] == ["fp16", "dynamic-int8", "static-int8", "inc-int8"]


def test_files_of_equal_bytes_do_not_go_round_in_circles(reported_run: RunFolder) -> None:
    facts = read_facts(reported_run)
    first, *others = facts.record.variants
    same = tuple(replace(one, sha256=first.sha256, parent_sha256=first.sha256) for one in others)
    top = lineage(replace(facts, record=replace(facts.record, variants=(first, *same))))
    assert len(top.children[0].children) == 6


def test_the_ledger_shows_first_what_fp32_had_right_and_was_surest_of(reported_run: RunFolder) -> None:
    facts = read_facts(reported_run)
    shown = ledger(facts)
    assert shown is not None
    assert facts.changes is not None
    assert shown.total == len(shown.lines) == len(facts.changes.changes)
    outcomes = [line.row.outcome for line in shown.lines]
    assert outcomes == sorted(outcomes, key=["broken", "otherwise", "mended"].index)
    broken = [line.row.fp32_probability or 0 for line in shown.lines if line.row.outcome == "broken"]
    assert broken == sorted(broken, reverse=True)
    assert shown.lines[0].picture.startswith("data:image/jpeg")
    assert all(map(bool, shown.lines[0].maps))


def test_confusion_matrices_hold_every_image_and_their_difference_none(reported_run: RunFolder) -> None:
    facts = read_facts(reported_run)
    assert facts.answers is not None
    for one in facts.answers.confusions:
        assert sum(map(sum, one.counts)) == 48
        assert one.minus_fp32 is None or sum(map(sum, one.minus_fp32)) == 0
    first = confusions(facts)[0]
    assert [len(matrix.rows) for matrix in first.matrices] == [8, 8, 8]
    assert first.variant == "pact-int8"  # the noisiest changes most
    assert first.moved == facts.image_by_image.answers.changes[-1].changed  # type: ignore[union-attr]


def test_of_too_many_classes_the_cells_that_moved_are_listed(reported_run: RunFolder) -> None:
    facts = read_facts(reported_run)
    assert facts.answers is not None
    many = MOST_CLASSES + 1
    counts = tuple(tuple(int(k == j) * 3 for j in range(many)) for k in range(many))
    moved = [[0] * many for _ in range(many)]
    moved[2][2], moved[2][5] = -2, 2
    fp32, other = facts.answers.confusions[:2]
    answers = replace(
        facts.answers,
        confusions=(
            replace(fp32, counts=counts),
            replace(other, counts=counts, minus_fp32=tuple(map(tuple, moved))),
        ),
    )
    named = replace(facts.record, classes=tuple(f"c{k}" for k in range(many)))
    (found,) = confusions(replace(facts, answers=answers, record=named))
    assert found.matrices == ()
    assert [cell[:2] + cell[4:] for cell in found.cells] == [("c2", "c2", "−2"), ("c2", "c5", "+2")]


def test_curves_and_diagrams_name_their_files(reported_run: RunFolder, labelled_run: RunFolder) -> None:
    facts = read_facts(reported_run)
    assert [one.of_class for one in class_curves(facts)] == list(facts.record.classes)
    assert class_curves(facts)[0].roc.count('class="line') == 6
    assert [figure.title for figure in reliability_figures(facts)] == list(facts.variant_names)
    assert [figure.title for figure in history_figures(facts)] == ["Loss", "Validation"]
    assert len(class_curves(read_facts(labelled_run))) == 10  # four labels are too rare


def test_the_panels_hold_every_variant_in_one_order(reported_run: RunFolder) -> None:
    found = multiples(read_facts(reported_run))
    assert [name for name, _ in found.variants] == list(read_facts(reported_run).variant_names)
    assert [len(panel.dots) for panel in found.panels] == [6] * 5
    assert found.panels[3].dots[0].text == "1.11\N{NO-BREAK SPACE}MiB"
    assert found.panels[4].dots[0].text == "reference"
    assert found.front == set(read_facts(reported_run).variant_names)  # each is best in something


def test_the_gallery_shows_the_least_alike_large(reported_run: RunFolder) -> None:
    facts = read_facts(reported_run)
    shown = gallery(facts)
    assert shown is not None
    first = shown.cards[0]
    assert [tile.title for tile in first.tiles] == ["Image", "fp32", "pact-int8", "pact-int8 − fp32"]
    assert len(first.strip) == 4
    assert all(tile.over.startswith("data:image/png") for tile in (*first.tiles[1:], *first.strip))
    assert sanity_sentences(facts)[0].startswith("occlusion: maps of the same network with random weights")


def test_the_flow_of_images_adds_up(reported_run: RunFolder) -> None:
    data = read_facts(reported_run).data
    assert data is not None
    flow = data_flow(replace(data, skipped=("a: broken",), dropped=("b: equal",), ignored=("c",), groups_known=True))
    assert (flow.found, flow.images) == (3 * 48 + 3, (48, 48, 48))
    assert (flow.patients, flow.shared) == ((24, 24, 24), 0)
    assert [sum(one.images) for one in flow.classes] == [18] * 8
    assert data_flow(replace(data, groups_known=False)).shared is None
    assert data_flow(replace(data, groups_known=False)).patients is None


def test_backticks_become_code_and_nothing_else_does() -> None:
    assert ticked("run `a <b>` & `c`") == "run <code>a &lt;b&gt;</code> &amp; <code>c</code>"
    assert ticked("a lone ` stays <i>") == "a lone ` stays &lt;i&gt;"
    assert quoted("run `a` & `b` or `") == "run ‘a’ & ‘b’ or ‘"


def test_a_damaged_document_is_left_out_and_told(run: RunFolder) -> None:
    for path in (run.answers, run.reliability, run.changes, run.machine):
        path.write_text(json.dumps({"format_version": 1, "variants": 3}), encoding="utf-8")
    facts = read_facts(run)
    assert (facts.answers, facts.reliability, facts.changes, facts.machine) == (None, None, None, None)
    assert len(facts.unreadable) == 4


def test_the_front_holds_what_no_other_file_beats() -> None:
    def of(variant: str, accuracy: float, size: float, ms: float | None) -> list[Measurement]:
        return [
            Measurement("balanced_accuracy", accuracy, "share", variant),
            Measurement("size_bytes", size, "bytes", variant),
            Measurement("latency_p50_ms", ms, "ms", variant, Where("cpu", threads=1)),
        ]

    rows = [*of("fp32", 0.9, 100, 4), *of("fp16", 0.9, 50, 4), *of("int8", 0.8, 25, 2), *of("odd", 0.9, 10, None)]
    assert front(rows, "balanced_accuracy") == ("fp16", "int8")
