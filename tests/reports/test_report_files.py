"""The report as a whole: gold files, hostile texts, and runs that stopped anywhere."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from small_run import environment, small_record

from foundation.answer_documents import (
    AnswersInDetail,
    Bin,
    ChangesDocument,
    Confusion,
    Curves,
    LedgerRow,
    MachineNote,
    OperatingDot,
    ReliabilityDocument,
)
from foundation.errors import ExitCode, UsageError
from foundation.image_by_image import ChangedAnswers, Changes, ImageByImage
from foundation.measurements import Measurement, Where, read_measurements, write_measurements
from foundation.notes import Fp16Notes
from foundation.record import GateChange, StageRecord, VariantRecord, Verdict, read_record, write_record
from foundation.run_folder import RunFolder
from reports import REPORT_FILES, html, write_report
from reports.facts import Facts, read_facts
from reports.statements import WORDS

GOLD = Path(__file__).parent / "gold"
SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "report.schema.json"


class Outline(HTMLParser):
    """Tags, texts and attribute values of a page, what stands inside charts and style sheets aside."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, tuple[str, ...]]] = []
        self.text = ""
        self.ids: list[str] = []
        self.sources: list[str] = []
        self._inside = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "xlink:href")]
        if tag in ("svg", "style", "script"):
            self._inside += 1
        elif not self._inside:
            self.tags.append((tag, tuple(name for name, _ in attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag in ("svg", "style", "script"):
            self._inside -= 1

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text += data


def scrub(page: str) -> str:
    """Return a page without what may differ between versions of Pillow and matplotlib."""
    page = re.sub(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+", r"data:\1", page)
    page = re.sub(r"<style>.*?</style>", "<style>CSS</style>", page, count=1, flags=re.DOTALL)
    page = re.sub(r"script-src 'sha256-[^']+'", "script-src DIGEST", page, count=1)
    page = re.sub(r"<script>.*?</script>", "<script>JS</script>", page, count=1, flags=re.DOTALL)
    return re.sub(r"<svg.*?</svg>", "<svg>CHART</svg>", page, flags=re.DOTALL)


@pytest.mark.parametrize("name", ["index.html", "junit.xml", "summary.md", "model_card.md"])
@pytest.mark.parametrize("sample", ["reported_run", "labelled_run"])
def test_gold(sample: str, name: str, request: pytest.FixtureRequest) -> None:
    report = request.getfixturevalue(sample).report
    found = scrub((report / name).read_text(encoding="utf-8"))
    gold = GOLD / f"{'labels-' if sample == 'labelled_run' else ''}{name}.gold"
    if os.environ.get("EDGEPROOF_WRITE_GOLD"):
        gold.parent.mkdir(exist_ok=True)
        gold.write_text(found, encoding="utf-8")
    assert found == gold.read_text(encoding="utf-8"), "look at the change; EDGEPROOF_WRITE_GOLD=1 accepts it"


def test_the_same_run_gives_the_same_bytes(run: RunFolder, reported_run: RunFolder) -> None:
    write_report(run)
    assert [
        name for name in REPORT_FILES if (run.report / name).read_bytes() != (reported_run.report / name).read_bytes()
    ] == []
    assert sorted(path.name for path in run.report.iterdir()) == sorted(REPORT_FILES)


def test_report_json_has_the_promised_keys_and_every_measurement(reported_run: RunFolder) -> None:
    report = json.loads((reported_run.report / "report.json").read_text(encoding="utf-8"))
    Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(report)
    found = {key: report["measurements"][0][key] for key in ("metric", "provider", "split", "n", "settings")}
    assert found == {"metric": "accuracy", "provider": "cpu", "split": "test", "n": 48, "settings": {}}
    settings = [row["settings"] for row in report["measurements"]]
    assert {"subgroup": "narrow-band"} in settings
    assert {"threads": 1, "reason": "OpenVINO does not support DynamicQuantizeLinear"} in settings
    written = read_measurements(reported_run.measurements)
    keys = ("metric", "value", "unit", "variant", "n")
    assert [[row[key] for key in keys] for row in report["measurements"]] == [
        [getattr(one, key) for key in keys] for one in written
    ]
    assert [row["ci95"] and tuple(row["ci95"]) for row in report["measurements"]] == [one.ci95 for one in written]


def test_report_json_says_the_same_as_ever_of_stages_and_verdicts(reported_run: RunFolder) -> None:
    report = json.loads((reported_run.report / "report.json").read_text(encoding="utf-8"))
    assert set(report["run"]) == {
        "name", "configuration", "configuration_sha256", "gates_sha256", "dataset", "synthetic", "classes",
        "exit_code",
    }  # fmt: skip
    quantized = next(stage for stage in report["stages"] if stage["name"] == "quantize/fp16")
    assert set(quantized) == {"name", "status", "key", "inputs", "outputs", "seconds", "error"}
    assert set(report["environment"]["cpu"]) == {"model", "logical_cores", "features", "target"}
    assert set(report["variants"][0]) == {
        "variant", "method", "path", "sha256", "size_bytes", "parent_sha256", "settings", "notes",
    }  # fmt: skip
    verdict = next(one for one in report["verdicts"] if one["gate"].startswith("static-int8: saliency_spearman"))
    assert verdict["measurement"]["settings"] == {"method": "occlusion"}
    assert verdict["value"] == verdict["measurement"]["value"]


def test_the_page_is_self_contained_and_its_ids_are_unique(reported_run: RunFolder) -> None:
    page = (reported_run.report / "index.html").read_text(encoding="utf-8")
    outline = Outline(page)
    own = ("#", "data:image/png;base64,", "data:image/jpeg;base64,")
    assert [source for source in outline.sources if not source.startswith(own)] == []
    assert [source for source in outline.sources if source.startswith("#") and source[1:] not in outline.ids] == []
    assert len(outline.ids) == len(set(outline.ids))
    assert "url(http" not in page
    assert page.index("gates failed") < page.index("At a glance")


def test_the_one_script_is_ours_and_the_policy_allows_its_digest_alone(reported_run: RunFolder) -> None:
    page = (reported_run.report / "index.html").read_text(encoding="utf-8")
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page, flags=re.DOTALL)
    assert [attributes for attributes, _ in scripts] == [""]
    digest = base64.b64encode(hashlib.sha256(scripts[0][1].encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'" in page
    assert len(scripts[0][1].encode()) < 20_000
    assert "innerHTML" not in scripts[0][1]


@pytest.mark.parametrize("sample", ["reported_run", "labelled_run"])
def test_the_page_is_small_and_writes_each_picture_once(sample: str, request: pytest.FixtureRequest) -> None:
    page = (request.getfixturevalue(sample).report / "index.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 1_200_000
    gallery = page[page.index('<ol class="gallery">') : page.index("</ol>", page.index('<ol class="gallery">'))]
    photographs = re.findall(r"data:image/jpeg;base64,[^)]+", gallery)
    assert len(photographs) == len(set(photographs)) == gallery.count('class="card"')


def test_every_picture_is_told_and_every_table_captioned(reported_run: RunFolder) -> None:
    outline = Outline((reported_run.report / "index.html").read_text(encoding="utf-8"))
    tags = [tag for tag, _ in outline.tags]
    assert [names for tag, names in outline.tags if tag == "img" and "alt" not in names] == []
    assert tags.count("table") == tags.count("caption") > 8
    assert tags.count("h1") == 1


def hostile_notes(text: str) -> Fp16Notes:
    return Fp16Notes(
        constants=2,
        clipped_constants=1,
        raised_constants=0,
        tensors_with_changed_constants=(text,),
        float_islands={text: 1e6},
        logits_sqnr_db=None,
    )


def hostile_facts(text: str) -> Facts:
    """A small run in which every text is the given one."""
    name = f"{text}-variant"
    measurements = (
        Measurement("balanced_accuracy", 0.9, "share", name, Where("cpu", "test"), 5, (0.8, 1.0), {text: text}),
        Measurement("saliency_ssim", None, "similarity", name, Where(method=text), remarks={"reason": text}),
        Measurement("latency_p50_ms", 2.0, "ms", name, Where(text, threads=1), remarks={"nodes_on_provider": 0.1}),
        Measurement(f"sensitivity/{text}", 0.5, text, name),
    )
    record = small_record(
        name=text,
        dataset=text,
        classes=(text,),
        configuration={text: [text], "report": dict.fromkeys(WORDS, text)},
        gates_sha256=text,
        environment=replace(
            environment(text), edgeproof=text, python=text, platform=text, packages={text: text}, providers=(text,)
        ),
        synthetic=True,
        stages=(StageRecord("train", text, "failed", text, {}, {text: text}, 1.0, text),),
        variants=(VariantRecord(name, text, text, text, 2048, text, {text: text}, hostile_notes(text)),),
        verdicts=(Verdict(text, "failed", 1.0, 2.0, text),),
        gate_changes=(GateChange((text,), (text,)),),
    )
    counts = ((1, 0), (0, 1))
    row = LedgerRow(name, text, text, text, text, text, text, 0.5, 0.5, "broken")
    curves = Curves(name, text, 1, 1, ((0.0, 0.0), (1.0, 1.0)), ((0.0, 1.0), (1.0, 0.5)), OperatingDot(0.1, 0.9, 0.9))
    fp32, other = Confusion("fp32", counts, None), Confusion(name, counts, counts)
    return Facts(
        record,
        measurements=measurements,
        changes=ChangesDocument(1, (), (row,)),
        reliability=ReliabilityDocument(1, 15, {name: (Bin(0.0, 0.1, 3, 0.05, 0.3, (0.1, 0.5)),)}),
        answers=AnswersInDetail(2, (fp32, other), (curves,), (text,), {name: (text,)}),
        machine=MachineNote(text, 0.5, text, text),
        image_by_image=ImageByImage(ChangedAnswers((Changes(name, 2, 1, 0, 0),), 1, ()), None),
        history=({text: 0.5, "train_loss": 1.0}, {text: 0.4, "train_loss": 0.5}),
        unreadable=(text,),
    )


HOSTILE = st.one_of(
    st.sampled_from(
        [
            "<script>alert(1)</script>",
            '"><img src=x onerror=alert(1)>',
            "' onmouseover='x",
            "{{ 7*7 }}{% raw %}",
            "</style></title></svg><b>",
            "$\\frac{1}$ ]]> --> &amp;",
            "\x00\x1b\n\t",
            "日本語 😀",
        ]
    ),
    # Between daggers: a report rightly shows more for one of its own words ("loss") and less for a blank.
    st.text().map("†{}†".format),
)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(HOSTILE)
def test_no_text_of_a_run_becomes_markup(text: str) -> None:
    assert Outline(html.render(hostile_facts(text))).tags == harmless_tags()


def test_a_text_of_blanks_counts_as_not_stated_whichever_they_are() -> None:
    assert Outline(html.render(hostile_facts("\r"))).tags == Outline(html.render(hostile_facts(" "))).tags


@functools.cache
def harmless_tags() -> list[tuple[str, tuple[str, ...]]]:
    return Outline(html.render(hostile_facts("x"))).tags


def test_a_latency_that_is_mostly_the_cpus_has_a_footnote() -> None:
    outline = Outline(html.render(hostile_facts("cuda")))
    assert "10.0\N{NARROW NO-BREAK SPACE}% of the nodes ran on cuda, the rest on cpu" in outline.text
    assert "#latency-0-note-a" in outline.sources


def test_a_hostile_name_is_shown_as_it_is(run: RunFolder) -> None:
    facts = replace(hostile_facts("<script>alert('{{ 7*7 }}')</script>"))
    page = html.render(facts)
    assert page.count("<script") == page.count('<script>"use strict"') == 1
    assert Outline(page).text.count("<script>alert('{{ 7*7 }}')</script>") > 10


def test_a_report_of_labels_says_what_was_asked_and_what_is_too_rare(labelled_run: RunFolder) -> None:
    page = Outline((labelled_run.report / "index.html").read_text(encoding="utf-8")).text
    for said in (
        "AUROC, macro",
        "at probability 0.5",
        "explains Infiltration; ",
        "Yes/no answers that differ from fp32's",
        "mean over 10 of 14 labels",
        "Intervals draw whole groups of images, such as patients: 100 groups.",
        "left out of the means over labels: Fibrosis (0 of 200), ",
    ):
        assert said in page, said
    summary = (labelled_run.report / "summary.md").read_text(encoding="utf-8")
    assert "auroc/Hernia ≥ 0.8 not measured: no positive image in the test split" in summary
    card = (labelled_run.report / "model_card.md").read_text(encoding="utf-8")
    assert "labels, of which an image has any number: Infiltration, " in card
    assert "yes/no answers differ from fp32's" in card


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (["validate/saliency"], "Saliency maps: not measured"),
        (["validate/image_by_image.json"], "The run holds no predictions to compare."),
        (["validate/image_by_image.json"], "Saliency maps: not measured"),
        (["validate/measurements.json", "validate/saliency"], "Latency: not measured."),
        (["data"], "The run folder holds no prepared images."),
        (["train", "validate/saliency"], "The run holds no training history."),
        (["validate", "data", "train"], "not measured"),
    ],
)
def test_a_run_that_lost_files_is_still_reported(run: RunFolder, lost: list[str], said: str) -> None:
    for name in lost:
        path = run.root / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    page = write_report(run).read_text(encoding="utf-8")
    assert said in Outline(page).text


def test_a_run_that_has_only_begun_gives_a_report(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    write_record(run, small_record(name="bare"))
    text = Outline(write_report(run).read_text(encoding="utf-8")).text
    assert [
        said in text for said in ("The run did not end", "No variant was compiled.", "Saliency: not measured.")
    ] == [True] * 3


def test_a_stage_that_failed_is_told_first_and_its_variant_is_not_measured(run: RunFolder) -> None:
    record = read_record(run)
    error = "its environment is missing; run `make inc`"
    stages = tuple(
        replace(stage, status="not_measured", outputs={}, error=error) if stage.subject == "inc-int8" else stage
        for stage in record.stages
    )
    variants = tuple(variant for variant in record.variants if variant.variant != "inc-int8")
    write_record(run, replace(record, stages=stages, variants=variants, exit_code=ExitCode.INCOMPLETE))
    kept = [one for one in read_measurements(run.measurements) if one.variant != "inc-int8"]
    write_measurements(run.measurements, kept)
    text = Outline(write_report(run).read_text(encoding="utf-8")).text
    assert "Evidence incomplete" in text
    assert text.index(html.quoted(error)) < text.index("At a glance")
    assert read_facts(run).variant_names[-1] == "inc-int8"
    assert "Evidence incomplete" in (run.report / "summary.md").read_text(encoding="utf-8")


def test_nothing_is_written_when_the_record_is_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        write_report(RunFolder(tmp_path))
    assert list(tmp_path.iterdir()) == []
