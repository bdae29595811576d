"""What commands do that are more than a line: each ends the process with the exit code of its outcome."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from foundation.errors import ExitCode, UsageError
from pipeline.console import error_console, observer_of, print_result, show_fleet, show_night, show_outcome

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from pipeline.configuration import Configuration
    from pipeline.night.fleet import Member, MemberNight
    from pipeline.run.executors.opening import Asked
    from pipeline.run.executors.task import Executor


def _folder(configuration: Configuration, run: Path | None) -> Any:
    from foundation.run_folder import RunFolder

    return RunFolder(run or Path("runs") / configuration.name)


def _follow_if_another_leads() -> None:
    """Under `torchrun` only the process of rank 0 does the command; the others train with it and end."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and int(os.environ.get("RANK", "0")) > 0:
        from pipeline.run.model import follow_training

        follow_training()
        raise typer.Exit(0)


def _executor(asked: Asked | None) -> AbstractContextManager[Executor | None]:
    """Return what opens the executor that was asked for."""
    from pipeline.run.executors.opening import Asked, opened_executor

    return opened_executor(asked or Asked())


def run_configuration(
    configuration: Configuration,
    run: Path | None,
    as_json: bool,
    quiet: bool,
    asked: Asked | None = None,
    write_beside: Callable[[Path], Path] | None = None,
) -> None:
    """Do everything that a configuration asks for, show how it went, and end with its code."""
    from foundation.run_files import add_to_record
    from pipeline.flow import compile_and_validate

    _follow_if_another_leads()
    with _executor(asked) as executor:
        outcome = compile_and_validate(configuration, _folder(configuration, run), observer_of(quiet), executor)
    print_result(outcome.as_json()) if as_json else show_outcome(outcome)
    if write_beside is not None:
        written = write_beside(outcome.run.root)
        add_to_record(outcome.run, (written,))
        observer_of(quiet).say(f"what this stood for: {written}")
    raise typer.Exit(outcome.exit_code)


def run_model(
    model: Path,
    images: Path | None,
    labels: Path | None,
    given: list[Path],
    form: Mapping[str, Any],
    run: Path | None,
    as_json: bool,
    quiet: bool,
    asked: Asked,
) -> None:
    """Judge an ONNX file on labelled images without a configuration, and write out the one that it stands for."""
    from pipeline.one_file.options import request_for
    from pipeline.one_file.run_file import RunRequest, configuration_of, write_configuration

    if images is None:
        raise UsageError(
            f"{model}: expected labelled images to judge it on, found none. Give --images: a folder with one folder "
            "per class, or a CSV table."
        )
    request = RunRequest(request_for(model, form), images, labels, given)
    configuration = configuration_of(request, observer_of(quiet))
    run_configuration(
        configuration, run, as_json, quiet, asked, lambda folder: write_configuration(configuration, folder)
    )


def run_night(config: Path, root: Path | None, as_json: bool, quiet: bool, asked: Asked) -> None:
    """Do one configuration's night, bring the page over all nights up to date, and end with the night's code."""
    from pipeline.configuration_file import read_configuration
    from pipeline.flow import run_one_night

    configuration = read_configuration(config)
    fleet = root or Path("runs/nightly")
    try:
        with _executor(asked) as executor:
            result = run_one_night(configuration, root or fleet / configuration.name, observer_of(quiet), executor)
    finally:
        _tell_all_nights(fleet)
    show_night(result, as_json)
    raise typer.Exit(result.exit_code)


def run_several_nights(
    configs: list[Path],
    root: Path,
    minutes: float | None,
    at_once: int | None,
    as_json: bool,
    quiet: bool,
    asked: Asked,
) -> None:
    """Do the night of each configuration, bring the page over all nights up to date, and end with the worst code."""
    from pipeline.flow import run_one_night
    from pipeline.night.at_once import members_at_once
    from pipeline.night.fleet import fleet_exit_code, one_night, read_members, run_fleet
    from pipeline.run.executors.opening import nights_at_once

    observer = observer_of(quiet)
    together = nights_at_once(asked, at_once, len(configs))
    with _executor(asked) as executor, ExitStack() as held:
        if executor is None or together == 1:
            run_one = partial(run_one_night, observer=observer, executor=executor)
            night_of: Callable[[Member], MemberNight] = partial(one_night, run_one=run_one)
        else:
            night_of = held.enter_context(members_at_once(executor, observer.say)).night_of
        nights = run_fleet(read_members(configs, root), night_of, minutes, observer.say, at_once=together)
    page = _tell_all_nights(root)
    show_fleet(nights, page, as_json)
    raise typer.Exit(fleet_exit_code(nights))


def _tell_all_nights(root: Path) -> Path | None:
    """Write the page over all nights and the files for other programs; None where there is no night yet."""
    from foundation.files import remove_leftovers
    from foundation.lock import lock_patiently
    from pipeline.night.nightly import utc_now
    from pipeline.night.overview import FOLDER_NAME, write_overview
    from pipeline.night.status_files import write_status

    if not root.is_dir():
        return None
    with lock_patiently(root / FOLDER_NAME, seconds=60.0):  # nights of several processes may end at once
        remove_leftovers(root / FOLDER_NAME)
        write_status(root)
        return write_overview(root, utc_now())


def run_stages(stage: str, config: Path, run: Path | None, variant: str | None, as_json: bool, quiet: bool) -> None:
    """Do the stages up to one and end with 0, or with 3 where a variant has no result."""
    from foundation.record import read_record
    from pipeline.configuration_file import read_configuration
    from pipeline.flow import run_until
    from reports.report_json import published

    _follow_if_another_leads()
    configuration = read_configuration(config)
    if variant is not None and variant not in configuration.variants:
        raise UsageError(f"--variant: expected one of {', '.join(configuration.variants)}, found {variant!r}.")
    folder = _folder(configuration, run)
    exit_code = run_until(stage, configuration, folder, variant, observer_of(quiet))
    if quiet and exit_code:  # who watches has been told
        for unfinished in read_record(folder).unfinished_stages:
            error_console().print(f"✗ {unfinished.name}: {unfinished.error}", highlight=False, markup=False)
    if as_json:
        shown = published(read_record(folder), ())
        print_result(
            {"exit_code": int(exit_code), "run": str(folder.root), **{k: shown[k] for k in ("stages", "variants")}}
        )
    raise typer.Exit(exit_code)


def compile_model(
    model: Path, options: Mapping[str, Any], as_json: bool, quiet: bool, accept_worse: bool = False
) -> None:
    """Compile one ONNX file, show what that changed, and end with 1 where that is for the worse and not accepted."""
    from pipeline.one_file.compile_file import compile_file
    from pipeline.one_file.options import request_for
    from pipeline.one_file.text import compiled_table

    compiled = compile_file(request_for(model, options), observer_of(quiet))
    print_result(compiled.as_json() if as_json else compiled_table(compiled))
    if compiled.worse and not accept_worse:
        raise typer.Exit(ExitCode.GATE_FAILED)
