"""From a run folder's files to what a reviewer reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from foundation.run_folder import RunFolder


REPORT_FILES = (
    "report.json", "measurements.csv", "junit.xml", "summary.md", "model_card.md", "bom.cdx.json", "index.html",
)  # fmt: skip
"""What `write_report` writes, in its order."""


def write_report(run: RunFolder) -> Path:
    """Write the `REPORT_FILES` into the run's report folder.

    Everything is rendered before the first file is written. What the run lacks is shown as "not measured".

    Args:
        run: a run folder that holds at least `run.json`.

    Returns:
        The path of `index.html`.

    Raises:
        UsageError: `run.json` is missing or is not a run record that this version knows.
    """
    from foundation.files import write_bytes
    from foundation.printable import printable_json, printable_lines
    from reports import bom, html, junit, measurements_csv, model_card, report_json, summary
    from reports.facts import read_facts

    facts = read_facts(run)
    renderers = (report_json, measurements_csv, junit, summary, model_card, bom, html)
    contents = {name: of.render(facts) for name, of in zip(REPORT_FILES, renderers, strict=True)}
    for name, text in contents.items():
        plain = printable_json(text) if name.endswith(".json") else printable_lines(text)
        write_bytes(run.report / name, plain.encode())
    return run.report / "index.html"
