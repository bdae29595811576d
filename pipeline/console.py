"""What the commands show: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.errors import ExitCode
from foundation.printable import printable, printable_json, printable_lines

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from foundation.progress import Observer
    from pipeline.flow import RunOutcome
    from pipeline.night.fleet import MemberNight
    from pipeline.night.nightly import NightlyResult


def fail(error: BaseException, message: str, code: ExitCode) -> None:
    """Show an error in red and end with its code; with `--debug`, raise it."""
    if os.environ.get("EDGEPROOF_DEBUG"):
        raise error
    from rich.text import Text

    error_console().print(Text("error: ", style="bold red").append(printable_lines(message), style="default"))
    sys.exit(code)


def error_console() -> Console:
    """Return the console of stderr."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True)


def print_result(result: Any) -> None:
    """Print JSON values as JSON, anything else as rich renders it."""
    from rich.console import Console

    if isinstance(result, dict | list):
        print(printable_json(json.dumps(result, indent=2, ensure_ascii=False)))
    else:
        Console().print(result)


def observer_of(quiet: bool) -> Observer:
    """Return who watches a run: the terminal, or nobody."""
    from foundation.progress import Silent, Terminal

    return Silent() if quiet else Terminal(error_console())


def open_in_browser(path: Path) -> None:
    """Show a page in the user's browser, or say that there is none."""
    import webbrowser

    if not webbrowser.open(path.resolve().as_uri()):
        observer_of(False).say(f"! No browser was found to open {path} in; open it by hand.")


def show_outcome(outcome: RunOutcome) -> None:
    """Print each gate with its outcome, the sentence, and where the report lies."""
    from rich.console import Console
    from rich.markup import escape

    marks = {
        "passed": "[green]✓[/]", "failed": "[red]✗[/]", "inconclusive": "[yellow]~[/]", "missing": "[yellow]?[/]",
    }  # fmt: skip
    console = Console(soft_wrap=True, highlight=False)
    for verdict in outcome.verdicts:
        found = "missing" if verdict.value is None else f"{verdict.value:.4g}"
        gate, detail = escape(printable(verdict.gate)), escape(printable(verdict.detail))
        console.print(f"{marks[verdict.status]} {gate}: [bold]{found}[/]\n  [dim]{detail}[/]")
    for change in outcome.gate_changes:
        console.print(f"[yellow]! {escape(change.sentence)}[/]")
    console.print(outcome.sentence)
    console.print(f"report: {outcome.report.resolve().as_uri()}")


def show_fleet(nights: Sequence[MemberNight], page: Path | None, as_json: bool) -> None:
    """Print what the night came to for each configuration, and where the page over all nights lies."""
    if as_json:
        print_result(
            {
                "nights": [
                    {"name": night.member.name, "configuration": str(night.member.path), **night.as_json()}
                    for night in nights
                ],
                "page": str(page) if page else None,
            }
        )
        return
    width = max(len(printable(night.member.name)) for night in nights)
    for night in nights:
        print(printable_lines(f"{int(night.exit_code)}  {printable(night.member.name):{width}}  {night.sentence}"))
    if page is not None:
        print(f"all nights: {page.resolve().as_uri()}")


def show_night(result: NightlyResult, as_json: bool) -> None:
    """Print what a night came to."""
    from dataclasses import asdict

    from pipeline.judge.comparison_text import comparison_table

    if as_json:
        comparison = result.comparison.as_json() if result.comparison else None
        why = [asdict(cause) for cause in result.causes]
        codes = {"exit_code": int(result.exit_code), "gates_exit_code": int(result.gates_exit_code)}
        print_result(
            {
                "run": str(result.run.root),
                **codes,
                "comparison": comparison,
                "causes": why,
                "notes": list(result.notes),
            }
        )
        return
    for note in result.notes:
        print(printable_lines(note))
    if result.comparison:
        print_result(comparison_table(result.comparison))
    for cause in result.causes:
        print(printable_lines(cause.sentence))
    ended = f"exit code {int(result.exit_code)} (gates {int(result.gates_exit_code)})"
    print(printable(f"{ended}; run {result.run.root}"))
