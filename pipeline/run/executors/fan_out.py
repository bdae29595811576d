"""Let workers compute ahead of a run's own flow, which afterwards finds what they delivered and computes the rest.

Nothing depends on it: without a delivery the flow computes a stage itself, as it does without any workers. Only what
broke every process that tried it is not computed here, since it would break this one too.
"""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, wait
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

from foundation.errors import DiskError, StageError, UsageError
from foundation.files import remove_leftovers
from foundation.progress import Observer
from pipeline.configuration import Configuration
from pipeline.run.deliveries import Looking, NeededStage
from pipeline.run.executors.share import Share, put_run, take_run
from pipeline.run.executors.task import Executor, ExecutorLostError, Outcome, Task
from pipeline.run.executors.units import Unit, do_unit, units_of
from pipeline.run.executors.worker import processor, software
from pipeline.run.ledger import Ledger
from pipeline.run.model import Model

if TYPE_CHECKING:
    from calibration_data.prepared import PreparedData


def fan_out(
    configuration: Configuration,
    ledger: Ledger,
    data: PreparedData,
    start: Model,
    executor: Executor,
    observer: Observer,
) -> None:
    """Have the stages of every variant computed where they are not there yet.

    Args:
        configuration: of the run.
        ledger: of the run, after its images and its float file; told what broke every worker.
        data: the images.
        start: what every variant starts from.
        executor: where the work is done.
        observer: hears of each unit that ends.

    Raises:
        DiskError: a worker's write was refused.
    """
    units = units_of(configuration, len(data.test.labels))
    order = TopologicalSorter(units)
    order.prepare()
    fanned = _Fanned(configuration, ledger, data, start, executor, observer)
    with observer.stage(f"{executor.name}: {len(units)} tasks") as progress:
        ended = 0
        while order.is_active():
            for unit in order.get_ready():
                if not fanned.begin(unit, units[unit]):
                    order.done(unit)
                    ended += 1
            if fanned.pending:
                for unit in fanned.take():
                    order.done(unit)
                    ended += 1
            progress(ended, len(units))
    ledger.given_up = fanned.given_up
    remove_leftovers(ledger.run.root)  # of workers that were killed


class _Fanned:
    """A fan-out under way: what is pending, what came to nothing, what broke its workers."""

    def __init__(
        self,
        configuration: Configuration,
        ledger: Ledger,
        data: PreparedData,
        start: Model,
        executor: Executor,
        observer: Observer,
    ) -> None:
        self.pending: dict[Future[Outcome], Unit] = {}
        self.given_up: dict[str, str] = {}
        self._missing: set[Unit] = set()
        self._gone = False
        self._configuration, self._data, self._start = configuration, data, start
        self._looking = Looking(ledger.run, ledger.record, ledger.earlier)
        self._executor, self._observer = executor, observer
        self._share = None if executor.share is None else Share(executor.share)
        self._told = (configuration.as_json(), software(), processor())

    def begin(self, unit: Unit, waits_for: frozenset[Unit]) -> bool:
        """Submit a unit; return False where there is nothing to do, or nothing that it could stand on."""
        if self._gone or waits_for & self._missing:
            self._missing.add(unit)
            return False
        try:
            do_unit(unit, self._configuration, self._looking, self._data, self._start)
        except NeededStage as needed:
            values, versions, cpu = self._told
            run, url = self._looking.run, self._executor.share
            files = {} if self._share is None else put_run(self._share, run)
            where = str(run.root.resolve())
            task = Task(values, where, url, files, unit, needed.name, needed.key, versions, cpu)
            self.pending[self._executor.submit(task)] = unit
            return True
        except DiskError:
            raise
        except (StageError, UsageError):
            self._missing.add(unit)  # the run's own flow meets the same, and records it
        return False

    def take(self) -> list[Unit]:
        """Wait for at least one unit and return those that ended.

        Raises:
            DiskError: a worker's write was refused.
        """
        ended, _ = wait(self.pending, return_when=FIRST_COMPLETED)
        return [self._taken(future) for future in ended]

    def _taken(self, future: Future[Outcome]) -> Unit:
        unit = self.pending.pop(future)
        try:
            outcome = future.result()
        except ExecutorLostError as error:
            if not self._gone:
                self._observer.say(f"! {error} What is missing is computed here.")
            self._gone = True
            self._missing.add(unit)
            return unit
        if outcome.status == "done" and self._is_taken(unit, outcome):
            self._observer.say(f"  {unit.title}: done on {outcome.host}")
            return unit
        self._missing.add(unit)
        if outcome.status == "disk":
            raise DiskError(outcome.said)
        if outcome.status == "died":
            self._observer.say(f"✗ {unit.title}: {outcome.said}")
            self.given_up |= dict.fromkeys(unit.stages, f"{unit.title}: {outcome.said}")
        elif outcome.status != "done":
            self._observer.say(f"! {unit.title}: {outcome.said.rstrip('.')}. It is computed here.")
        return unit

    def _is_taken(self, unit: Unit, outcome: Outcome) -> bool:
        """Fetch what a worker handed over; return whether it is here."""
        try:
            if self._share is not None:
                take_run(self._share, self._looking.run, outcome.files)
        except DiskError:
            raise
        except UsageError as error:
            self._observer.say(f"! {unit.title}: {error}")
            return False
        return True
