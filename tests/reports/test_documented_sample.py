"""`docs/sample` is what this version writes of fixed facts, says that they are synthetic, and stays small."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from documented_sample import write_documented_run
from test_report_files import scrub

from reports import write_report

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "sample"
SHOWN = ("index.html", "summary.md", "model_card.md", "junit.xml")
MOST_BYTES = 400_000


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = write_documented_run(tmp_path_factory.mktemp("documented") / "sample")
    write_report(run)
    if os.environ.get("EDGEPROOF_WRITE_GOLD"):
        FOLDER.mkdir(exist_ok=True)
        for name in SHOWN:
            (FOLDER / name).write_bytes((run.report / name).read_bytes())
    return run.report


@pytest.mark.parametrize("name", SHOWN)
def test_the_sample_is_what_this_version_writes(written: Path, name: str) -> None:
    found, kept = (scrub((folder / name).read_text(encoding="utf-8")) for folder in (written, FOLDER))
    assert found == kept, "look at the change; EDGEPROOF_WRITE_GOLD=1 accepts it"


def test_it_says_that_it_is_synthetic_and_stays_small() -> None:
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    assert "synthetic" in page[: page.index("<nav")].lower()
    assert sorted(path.name for path in FOLDER.iterdir()) == sorted(SHOWN)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < MOST_BYTES
