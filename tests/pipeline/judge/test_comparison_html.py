"""The page of two runs: a gold file, hostile names, and other images, of which nothing is said to be worse."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from small_run import VARIANT, accuracy, latency, size, speedup, write_run

from foundation.measurements import Measurement, PairedDifference, Where
from foundation.run_folder import RunFolder
from pipeline.judge.comparison import compare
from pipeline.judge.comparison_html import comparison_html
from pipeline.judge.evidence import read_evidence
from pipeline.judge.paired_runs import PairedRuns
from pipeline.judge.tolerances import ComparisonSettings

GOLD = Path(__file__).parent / "gold" / "comparison.html.gold"
ON_TEST = Where("cpu", "test")


def page_of(first: RunFolder, second: RunFolder, pairs: PairedRuns | None = None) -> str:
    accepted, current = read_evidence(first), read_evidence(second)
    pairs = pairs or PairedRuns(why_not="The folder of the accepted run is gone.")
    return comparison_html(compare(accepted, current, ComparisonSettings(), pairs), accepted, current, pairs)


def text_of(page: str) -> str:
    collected: list[str] = []

    class Texts(HTMLParser):
        def handle_data(self, data: str) -> None:
            collected.append(data)

    Texts(convert_charrefs=True).feed(re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL))
    return " ".join(" ".join(collected).split())


def part(page: str, key: str) -> str:
    found = re.search(rf'<section id="{key}".*?</section>', page, re.DOTALL)
    return text_of(found[0]) if found else ""


def brier(value: float) -> Measurement:
    return Measurement("brier", value, "squared distance", VARIANT, ON_TEST, 200, (value - 0.01, value + 0.01))


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[RunFolder, RunFolder]:
    """One number is worse, one better, one missing, one may be chance, one is new, one a time of its night."""
    auroc, ece, sqnr = (
        Measurement("auroc_macro", 0.95, "share", VARIANT, ON_TEST, 200, (0.92, 0.97)),
        Measurement("ece", 0.03, "share", VARIANT, ON_TEST, 200),
        Measurement("logits_sqnr_db", 24.0, "dB", VARIANT, ON_TEST, 200),
    )
    before = (accuracy(), brier(0.30), auroc, ece, size(), latency(), speedup(), sqnr)
    worse_auroc = Measurement("auroc_macro", 0.93, "share", VARIANT, ON_TEST, 200, (0.9, 0.96))
    now = (accuracy(0.85), brier(0.20), worse_auroc, size(), latency(12.0), speedup(), sqnr,
           Measurement("agreement", 0.99, "share", VARIANT, ON_TEST, 200))  # fmt: skip
    return (
        write_run(tmp_path / "monday", before),
        write_run(tmp_path / "tuesday", now, onnxruntime="1.32.0"),
    )


def paired() -> PairedRuns:
    moved = {
        ("accuracy", VARIANT, ON_TEST): (-0.05, (-0.08, -0.02), 0.0, 0.05),
        ("auroc_macro", VARIANT, ON_TEST): (-0.02, (-0.05, 0.01), None, None),
    }
    differences = {}
    for key, (value, ci95, gained, lost) in moved.items():
        error = (ci95[1] - ci95[0]) / 3.92
        method = "tango" if gained is not None else "delong"
        differences[key] = PairedDifference(
            value, ci95, method, 200, 200, gained, lost, 200.0, 200.0, None,
            None if method == "tango" else error, None if method == "tango" else 199,
        )  # fmt: skip
    return PairedRuns(differences)


def test_gold(two_runs: tuple[RunFolder, RunFolder]) -> None:
    found = page_of(*two_runs, paired())
    found = re.sub(r"<style>.*?</style>", "<style>CSS</style>", found, count=1, flags=re.DOTALL)
    found = re.sub(r"<dd>[0-9a-f]{12}</dd>", "<dd>DIGEST</dd>", found)
    found = re.sub(r"Written by edgeproof[^<]*?\. The", "Written by edgeproof. The", found)
    if os.environ.get("EDGEPROOF_WRITE_GOLD"):
        GOLD.parent.mkdir(exist_ok=True)
        GOLD.write_text(found, encoding="utf-8")
    assert found == GOLD.read_text(encoding="utf-8"), "look at the change; EDGEPROOF_WRITE_GOLD=1 accepts it"


def test_each_number_stands_under_what_became_of_it(two_runs: tuple[RunFolder, RunFolder]) -> None:
    page = page_of(*two_runs, paired())
    assert "Accuracy accuracy, cpu, test static-int8 90.0" in part(page, "worse")
    assert "−5.0 points −8.0 to −2.0" in part(page, "worse")
    assert "AUROC, macro" in part(page, "untold")
    assert "may be chance" in part(page, "untold")
    assert "Brier score" in part(page, "better")
    assert "ECE" in part(page, "missing")
    assert "p50" in part(page, "apart")
    assert "Agreement with fp32" in part(page, "new")
    assert "Size" in part(page, "same")
    assert "Worse 1 measurement worse, 1 measurement better, 1 measurement missing" in part(page, "outcome")
    assert "Other versions: onnxruntime 1.31.1 → 1.32.0." in part(page, "outcome")


def test_equal_runs_are_not_worse(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "a"), write_run(tmp_path / "b"))
    assert "Nothing got worse no change beyond the tolerances" in part(page, "outcome")
    assert "Exit code 0." in part(page, "outcome")
    assert "Got worse (0)" in part(page, "worse")


def test_of_other_images_nothing_is_said_to_be_worse_but_of_the_file(tmp_path: Path) -> None:
    before = write_run(tmp_path / "a", (accuracy(), size()))
    now = write_run(tmp_path / "b", (accuracy(0.5), size(2_000_000)), images=b"others")
    page = page_of(before, now, PairedRuns(why_not="The accepted run answered other test images.", other_images=True))
    assert "Not comparable" in part(page, "outcome")
    assert "measured on other test images" in part(page, "outcome")
    assert "Accuracy" in part(page, "aside")
    assert "Accuracy" not in part(page, "worse")
    assert "Size" in part(page, "worse")


def test_other_training_images_and_the_same_test_images_are_comparable(tmp_path: Path) -> None:
    before = write_run(tmp_path / "a", (accuracy(),))
    now = write_run(tmp_path / "b", (accuracy(0.5),), images=b"others")
    comparison = compare(read_evidence(before), read_evidence(now), ComparisonSettings(), paired())
    assert comparison.other_images is None
    unknown = compare(read_evidence(before), read_evidence(now), ComparisonSettings(), None)
    assert "cannot be told" in str(unknown.other_images)
    assert unknown.statements[0] == unknown.other_images


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}", "\x1b[31m"]
)
def test_no_name_becomes_markup(tmp_path: Path, text: str) -> None:
    def hostile(value: float) -> Measurement:
        return Measurement(f"auroc/{text}", value, "share", text, Where(text, text, subgroup=text), 5)

    before = write_run(tmp_path / "a", (hostile(0.9),), cpu=text, onnxruntime=text)
    page = page_of(before, write_run(tmp_path / "b", (hostile(0.1),)))
    assert "<script" not in page
    assert "<img" not in page
    assert "49" not in part(page, "worse").replace("0.49", "")
    assert text in text_of(page)


def test_it_is_one_file_without_a_script(two_runs: tuple[RunFolder, RunFolder]) -> None:
    page = page_of(*two_runs)
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
