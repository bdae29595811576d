"""The whole run on one page: images → network → ONNX → variants → measurements → verdicts → report."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.errors import DiskError, EdgeproofError, ExitCode, StageError, UsageError
from foundation.files import JSON
from foundation.host_lock import computing
from foundation.measurements import Measurement
from foundation.places import of_places, read_places
from foundation.progress import Observer
from foundation.record import GateChange, Verdict, exit_code_of
from foundation.run_folder import RunFolder
from pipeline.configuration import Configuration
from pipeline.judge.gates import judge
from pipeline.places.keep import against_the_accepted_run
from pipeline.places.of_run import ask_configured_places
from pipeline.run.deliveries import remove_work
from pipeline.run.images import prepare_images
from pipeline.run.ledger import Ledger
from pipeline.run.measurements import validate_models
from pipeline.run.model import make_checkpoint, make_model, refuse_missing_files, take_given
from pipeline.run.opening import held_run, open_ledger
from pipeline.run.variants import compile_variants

if TYPE_CHECKING:
    from pipeline.night.accepted import Accepted
    from pipeline.night.nightly import NightlyResult
    from pipeline.night.recipe import Rerun
    from pipeline.run.executors.task import Executor


@dataclass(frozen=True)
class RunOutcome:
    """How a run ended."""

    run: RunFolder
    exit_code: ExitCode
    verdicts: tuple[Verdict, ...]
    report: Path
    gate_changes: tuple[GateChange, ...] = ()

    @property
    def sentence(self) -> str:
        """The outcome in one sentence."""
        counts = Counter(verdict.status for verdict in self.verdicts)
        if not self.verdicts and self.exit_code == ExitCode.PASSED:
            return "No gates were set: the run reports what it measured and accepts nothing."
        gates = f"{counts['passed']} of {len(self.verdicts)} gates passed"
        return {
            ExitCode.PASSED: f"All gates passed ({len(self.verdicts)}).",
            ExitCode.GATE_FAILED: f"{gates}, {counts['failed']} failed.",
            ExitCode.INCOMPLETE: f"The evidence is incomplete: {gates}, {counts['failed']} failed, "
            f"{counts['inconclusive']} inconclusive, {counts['missing']} missing.",
        }[self.exit_code]

    def as_json(self) -> dict[str, JSON]:
        """Return the outcome as `--json` prints it."""
        from reports.report_json import verdict_json

        return {
            "exit_code": int(self.exit_code),
            "run": str(self.run.root),
            "report": str(self.report),
            "gate_changes": [asdict(change) for change in self.gate_changes],
            "verdicts": [verdict_json(verdict) for verdict in self.verdicts],
        }


def compile_and_validate(
    configuration: Configuration,
    run: RunFolder,
    observer: Observer,
    executor: Executor | None = None,
    quiet_wait_minutes: float = 0.0,
) -> RunOutcome:
    """Do everything that a configuration asks for, reuse what the run folder already holds, and write the report.

    A variant that fails costs its own measurements and makes the evidence incomplete; the others go on.

    Args:
        configuration: of the run.
        run: its folder.
        observer: who watches.
        executor: whose workers compute ahead of this flow; None: it computes everything itself.
        quiet_wait_minutes: at most so long, the times wait until other processes leave the machine alone.

    Raises:
        UsageError: another process holds the run folder, or the images cannot be used.
        StageError: the network could not be trained or exported, so that there is nothing to measure.
    """
    with held_run(run):
        refuse_missing_files(configuration)
        ledger = open_ledger(configuration, run)
        given = take_given(configuration, ledger, observer)
        data = prepare_images(configuration, ledger, given, observer)
        model = make_model(configuration, ledger, data, given, observer)
        if executor is not None:
            from pipeline.run.executors.fan_out import fan_out

            fan_out(configuration, ledger, data, model, executor, observer)
        models = compile_variants(configuration, ledger, data, model, tuple(configuration.variants), observer)
        measurements = validate_models(configuration, ledger, data, models, observer, quiet_wait_minutes)
        ask_configured_places(configuration, ledger, observer)
        return conclude(configuration, ledger, measurements, observer)


def run_until(
    last: str, configuration: Configuration, run: RunFolder, variant: str | None, observer: Observer
) -> ExitCode:
    """Do the stages up to `last` ("train", "export", "quantize" or "validate"); reuse what is already there.

    Args:
        last: the last stage.
        configuration: of the run.
        run: its folder.
        variant: compile only this one; None compiles all.
        observer: who watches.

    Returns:
        0, or 3 where a variant could not be compiled or measured.
    """
    with held_run(run):
        refuse_missing_files(configuration)
        ledger = open_ledger(configuration, run)
        given = take_given(configuration, ledger, observer)
        data = prepare_images(configuration, ledger, given, observer)
        if last == "train" and given is None:
            make_checkpoint(configuration, ledger, data, observer)
        elif last != "train":
            model = make_model(configuration, ledger, data, given, observer)
            if last != "export":
                variants = tuple(configuration.variants) if variant is None else (variant,)
                models = compile_variants(configuration, ledger, data, model, variants, observer)
                if last == "validate":
                    validate_models(configuration, ledger, data, models, observer)
                    ask_configured_places(configuration, ledger, observer)
        return ExitCode.PASSED if ledger.record.all_stages_succeeded else ExitCode.INCOMPLETE


def run_one_night(
    configuration: Configuration, root: Path, observer: Observer, executor: Executor | None = None
) -> NightlyResult:
    """Do the whole run in a folder of tonight and compare it with the last accepted run."""
    from pipeline.night.nightly import run_nightly
    from pipeline.night.notices import notice_of, notice_of_error, notify

    notices = configuration.nightly.notices
    rerun = partial(_rerun, configuration, observer, executor)
    try:
        result = run_nightly(
            configuration.name,
            root,
            configuration.sha256,
            lambda run: _run_tonight(configuration, run, observer, executor),
            configuration.comparison,
            keep=configuration.nightly.keep,
            rerun=rerun if configuration.nightly.rerun_accepted else None,
        )
    except EdgeproofError as error:
        if notices is not None and root.is_dir():
            for problem in notify(notices, root, notice_of_error(configuration.name, error)):
                observer.say(f"! {problem}")
        raise
    if notices is None:
        return result
    return replace(result, notes=(*result.notes, *notify(notices, root, notice_of(configuration.name, result))))


def _run_tonight(
    configuration: Configuration, run: RunFolder, observer: Observer, executor: Executor | None
) -> ExitCode:
    if configuration.nightly.known_answers:
        from pipeline.machine.doctor import diagnose_deeply

        wrong = [check for check in diagnose_deeply() if check.status == "different"]
        if wrong:
            told = "; ".join(f"{check.name}: {check.found}" for check in wrong)
            raise StageError(f"The reference model answers otherwise than known ({told}). {wrong[0].mend}")
    minutes = configuration.nightly.quiet_wait_minutes
    return compile_and_validate(configuration, run, observer, executor, minutes).exit_code


def _rerun(
    configuration: Configuration, observer: Observer, executor: Executor | None, accepted: Accepted, folder: Path
) -> Rerun:
    """Run the accepted recipe again; what keeps it from being run is told, and costs the night nothing."""
    from pipeline.judge.comparison import compare
    from pipeline.judge.evidence import read_evidence
    from pipeline.judge.paired_runs import pair_runs
    from pipeline.night.recipe import Rerun, accepted_configuration, told

    run = RunFolder(folder)
    observer.say("the night is red and its configuration is another one: the accepted recipe is run again")
    try:
        recipe = accepted_configuration(accepted.evidence, configuration)
        compile_and_validate(recipe, run, observer, executor, configuration.nightly.quiet_wait_minutes)
        evidence = read_evidence(run)
    except DiskError:
        raise
    except (UsageError, StageError) as error:
        return Rerun(None, f"The accepted recipe could not be run again: {error}")
    pairs = pair_runs(RunFolder(accepted.folder), accepted.evidence.record, run, evidence.record)
    return told(compare(accepted.evidence, evidence, configuration.comparison, pairs))


def conclude(
    configuration: Configuration, ledger: Ledger, measurements: list[Measurement], observer: Observer
) -> RunOutcome:
    """Hold the measurements against the gates, close the record and write the report."""
    from reports import write_report

    accepted = against_the_accepted_run(configuration.gates, ledger.run, ledger.record)
    everywhere = (*measurements, *of_places(read_places(ledger.run, ledger.record)))
    verdicts = judge(configuration.gates, everywhere, accepted)
    exit_code = exit_code_of(verdicts, ledger.record.all_stages_succeeded)
    ledger.conclude(verdicts, exit_code)
    with computing(), observer.stage("report"):
        report = write_report(ledger.run)
    ledger.write()  # the digests of the report
    remove_work(ledger.run)
    return RunOutcome(ledger.run, exit_code, verdicts, report, ledger.record.gate_changes)
