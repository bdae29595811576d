"""Commands on runs that are there: reports, comparison, custody, acceptance, nights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from foundation.errors import ExitCode, UsageError
from foundation.printable import printable, printable_lines
from pipeline.command_line.options import (
    AsJson,
    ExistingRun,
    Quiet,
    Ray,
    Share,
    Workers,
)
from pipeline.commands import run_night, run_several_nights
from pipeline.console import observer_of, open_in_browser, print_result
from pipeline.exports.outside import refuse_inside_a_run, write_page


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="a run folder; of several, a page over them")],
    output: Annotated[Path | None, typer.Option(help="the page over several runs (default: beside them)")] = None,
    show: Annotated[bool, typer.Option("--open", help="open what was written in a browser")] = False,
    as_json: AsJson = False,
) -> None:
    """Write the report of a run again from its files, or a page over several runs."""
    from foundation.run_folder import RunFolder
    from pipeline.custody.report_again import report_again
    from pipeline.custody.runs_index import write_index

    code, warnings = ExitCode.PASSED, list[str]()
    if len(runs) == 1 and output is None:
        path, unverified = report_again(RunFolder(runs[0]))
        warnings += [] if unverified is None else [unverified]
    else:
        written = write_index(runs, output)
        path, warnings = written.path, list(written.unreadable)
        code = ExitCode.INCOMPLETE if warnings else ExitCode.PASSED
    for warning in warnings:
        observer_of(False).say(f"! {warning}")
    print_result({"report": str(path)}) if as_json else print(printable(str(path)))
    if show:
        open_in_browser(path)
    raise typer.Exit(code)


def check(
    run: ExistingRun,
    public_key: Annotated[
        Path | None, typer.Option(help="PEM file of the key that run.json is to be signed with")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hold every file of a run against its record: 0 as recorded, 2 otherwise."""
    from foundation.run_folder import RunFolder
    from pipeline.custody.check import check_run, checked_table

    checked = check_run(RunFolder(run), public_key)
    print_result(checked.as_json() if as_json else checked_table(checked))
    raise typer.Exit(checked.exit_code)


def sign(
    run: ExistingRun,
    key: Annotated[Path, typer.Option(help="PEM file of an Ed25519 private key")],
) -> None:
    """Sign a run's record, which names every file with its digest."""
    from foundation.run_folder import RunFolder
    from pipeline.custody.signature import sign_run

    print(sign_run(RunFolder(run), key))


def nightly(
    configs: Annotated[list[Path], typer.Argument(metavar="CONFIG…", help="one YAML configuration or several")],
    root: Annotated[
        Path | None,
        typer.Option(help="folder of the nights (default: runs/nightly/NAME); of several, each has one below it"),
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="of several: none is begun after so many")] = None,
    at_once: Annotated[
        int | None,
        typer.Option(help="of several: so many at once (default: one per worker, with --ray one per core)"),
    ] = None,
    workers: Workers = None,
    ray: Ray = None,
    share: Share = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run unattended under a lock and compare with the last accepted run."""
    from pipeline.run.executors.opening import Asked

    asked = Asked(workers, ray, share)
    if len(configs) > 1:
        run_several_nights(configs, root or Path("runs/nightly"), minutes, at_once, as_json, quiet, asked)
    if at_once is not None:
        raise UsageError("--at-once: expected several configurations, found one. Leave it out.")
    if minutes is not None:
        raise UsageError("--minutes: expected several configurations, found one. It ends between them; leave it out.")
    run_night(configs[0], root, as_json, quiet, asked)


def accept(
    run: ExistingRun,
    reason: Annotated[str | None, typer.Option(help="why a run that is not green is accepted all the same")] = None,
) -> None:
    """Make a run the one that later nights are compared with."""
    from foundation.run_folder import RunFolder
    from pipeline.night.accepted import accept as accept_run

    accepted = accept_run(RunFolder(run), run.resolve().parent, reason=reason)
    for change in accepted.evidence.record.gate_changes:
        observer_of(False).say(f"! {change.sentence}")
    print(printable(f"accepted {accepted.folder}"))


def compare(
    first: ExistingRun,
    second: ExistingRun,
    html: Annotated[Path | None, typer.Option(help="write the comparison as a page, too")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare the measurements of two runs by the tolerances of the second; the first one is the accepted one."""
    from foundation.run_folder import RunFolder
    from pipeline.judge.comparison import compare as compare_runs
    from pipeline.judge.comparison_html import comparison_html
    from pipeline.judge.comparison_text import comparison_table
    from pipeline.judge.evidence import read_evidence
    from pipeline.judge.paired_runs import pair_runs
    from pipeline.judge.tolerances import recorded_settings

    if html is not None:
        refuse_inside_a_run(html, "--html")
    accepted, current = (read_evidence(RunFolder(path)) for path in (first, second))
    pairs = pair_runs(RunFolder(first), accepted.record, RunFolder(second), current.record)
    comparison = compare_runs(accepted, current, recorded_settings(current.record), pairs)
    if html is not None:
        write_page(html, comparison_html(comparison, accepted, current, pairs))
    print_result(comparison.as_json() if as_json else comparison_table(comparison))
    raise typer.Exit(comparison.exit_code)


def bundle(
    run: ExistingRun,
    variant: Annotated[str, typer.Option(help="which of the run's files the device gets")],
    output: Annotated[Path | None, typer.Option(help="zip to write (default: VARIANT.kit.zip)")] = None,
    images: Annotated[
        Literal["test", "generated"],
        typer.Option(help="golden images: the run's own, or generated ones where none may leave the house"),
    ] = "test",
    golden: Annotated[int, typer.Option(help="how many golden images, 1 to 64")] = 12,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a device kit: one zip that checks answers and maps and takes times wherever Python or a browser runs."""
    from foundation.run_folder import RunFolder
    from pipeline.device.bundle import bundle as write_kit
    from pipeline.device.contents import BundleRequest

    observer = observer_of(quiet)
    bundled = write_kit(BundleRequest(RunFolder(run), variant, output, images, golden), observer)
    for remark in bundled.remarks:
        observer.say(f"! {remark}")
    print_result(bundled.as_json()) if as_json else print(printable(bundled.sentence))


def import_device(
    run: ExistingRun,
    device: Annotated[Path, typer.Argument(metavar="DEVICE_JSON", help="what a kit of this run wrote on a device")],
    place: Annotated[
        str | None,
        typer.Option(help="what the device is called in the report (default: the name that it gave itself)"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take what a kit found on a device into the run and its report: 0 same, 1 different or a gate on it failed."""
    from foundation.run_folder import RunFolder
    from pipeline.device.taken import take_device

    taken = take_device(RunFolder(run), device, place)
    for remark in taken.remarks:
        observer_of(False).say(f"! {remark}")
    print_result(taken.as_json()) if as_json else print(printable_lines(taken.sentence))
    raise typer.Exit(taken.exit_code)
