"""`edgeproof check`: every file of a run held against its record, the record against its own digest and signature."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import ExitCode
from foundation.files import JSON
from foundation.record import FORMAT_VERSION, parse_record
from foundation.run_files import CheckedFile, check_files, why_unverified
from foundation.run_folder import RunFolder
from foundation.sealed_files import SHOWN_DIGITS, seal_fault
from pipeline.custody.signature import signature_fault
from reports.formats import size

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class CheckedRun:
    """What a run folder turned out to be.

    Attributes:
        run: the folder.
        record_sha256: the digest that the record says of itself; None in format 2.
        faults: what is wrong with the record and its signature, one sentence each.
        signature: what is known of the signature, as a sentence.
        files: all others, by path.
    """

    run: Path
    record_sha256: str | None
    faults: tuple[str, ...]
    signature: str
    files: tuple[CheckedFile, ...]

    @property
    def bad(self) -> tuple[CheckedFile, ...]:
        """The files that are not as recorded."""
        return tuple(one for one in self.files if one.state != "intact")

    @property
    def exit_code(self) -> ExitCode:
        """0 where everything is as recorded, 2 otherwise."""
        return ExitCode.USAGE if self.bad or self.faults else ExitCode.PASSED

    @property
    def summary(self) -> str:
        """The outcome in one line."""
        counts = Counter(one.state for one in self.bad)
        found = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
        total = size(sum(one.size_bytes or 0 for one in self.files))
        record = "run.json is faulty, " if self.faults else ""
        return f"{record}{found or 'all as recorded'} of {len(self.files)} files ({total})"

    def as_json(self) -> dict[str, JSON]:
        """Return the outcome as `--json` prints it."""
        return {
            "exit_code": int(self.exit_code),
            "run": str(self.run),
            "record_sha256": self.record_sha256,
            "summary": self.summary,
            "faults": list(self.faults),
            "signature": self.signature,
            "files": [asdict(one) for one in self.files],
        }


def check_run(run: RunFolder, public_key: Path | None) -> CheckedRun:
    """Verify a run folder; reads every file once and asks nobody.

    Args:
        run: the folder.
        public_key: PEM file of the key that the record is to be signed with; None where that does not matter.

    Raises:
        UsageError: `run.json` is missing or cannot be parsed, or the key is none.
    """
    record = parse_record(run)
    faults = []
    if record.format_version == FORMAT_VERSION:
        fault = seal_fault(run.record.read_bytes())
        if fault is not None:
            faults.append(f"run.json: {fault}. It was changed after it was written; take it from a copy.")
    elif (unverified := why_unverified(record)) is not None:
        faults.append(unverified)
    if public_key is None:
        signature = "signed; --public-key verifies it" if run.signature.exists() else "not signed"
    else:
        wrong = signature_fault(run, public_key)
        faults += [] if wrong is None else [wrong]
        signature = f"signed by the key of {public_key.name}" if wrong is None else "not verified"
    return CheckedRun(run.root, record.sha256, tuple(faults), signature, check_files(run, record))


def checked_table(checked: CheckedRun) -> RenderableType:
    """Return file, size and state of everything, and the outcome, in at most 80 columns."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(width=80)
    table.add_column("file", overflow="fold", ratio=3)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("state", overflow="fold", ratio=2)
    digest = f"its own digest: {str(checked.record_sha256)[:SHOWN_DIGITS]}"
    table.add_row("run.json", "", Text("see below", "bold red") if checked.faults else digest)
    for one in checked.files:
        shown = "–" if one.size_bytes is None else size(one.size_bytes)
        table.add_row(_printable(one.path), shown, Text(_state(one), "" if one.state == "intact" else "bold red"))
    outcome = f"{checked.summary[0].upper()}{checked.summary[1:]}; {checked.signature}."
    style = "bold red" if checked.exit_code else "bold green"
    return Group(table, *(Text(fault, "bold red") for fault in checked.faults), Text(outcome, style))


def _state(one: CheckedFile) -> str:
    expected, found = (str(digest)[:SHOWN_DIGITS] for digest in (one.expected_sha256, one.found_sha256))
    return {
        "intact": "as recorded",
        "changed": f"changed: expected {expected}, found {found}",
        "missing": f"missing: expected {expected}",
        "unrecorded": f"not in the record: found {found}",
        "unusable": "no file that can be read",
    }[one.state]


def _printable(path: str) -> str:
    """Return a path that cannot command the terminal, nor be taken for markup."""
    from rich.markup import escape

    return escape(path if path.isprintable() else ascii(path)[1:-1])
