from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from label_sample_run import write_label_sample_run
from sample_run import write_sample_run

from foundation.run_folder import RunFolder
from reports import write_report


@pytest.fixture(scope="session")
def reported_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A complete run with its report; to be read only."""
    run = RunFolder(write_sample_run(tmp_path_factory.mktemp("sample") / "endoscopy-demo"))
    write_report(run)
    return run


@pytest.fixture(scope="session")
def labelled_run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A complete run of yes/no labels with its report; to be read only."""
    run = RunFolder(write_label_sample_run(tmp_path_factory.mktemp("labels") / "chest-demo"))
    write_report(run)
    return run


@pytest.fixture
def run(reported_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A complete run without a report, to be changed at will."""
    shutil.copytree(reported_run.root, tmp_path / "run", ignore=shutil.ignore_patterns("report"))
    return RunFolder(tmp_path / "run")
