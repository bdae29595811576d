"""`edgeproof export-mlflow`: a run in MLflow, a parent with the files and the configuration, a child per variant.

Nothing goes over a network unless the user names a server. MLflow's own reports home are turned off, and its store of
files, which its makers no longer develop and `mlflow migrate-filestore` moves elsewhere, is allowed: it needs no
database.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from foundation.errors import StageError, UsageError
from foundation.files import sha256_of_file, write_refused
from foundation.measurements import UNINFORMED
from foundation.printable import printable, shortened
from foundation.progress import Progress, no_progress
from foundation.run_files import refuse_changed
from foundation.run_folder import RunFolder
from pipeline.exports.mlflow_values import metrics_of, parameters_of
from pipeline.exports.outside import refuse_inside_a_run
from reports import REPORT_FILES
from reports.decision import outcome
from reports.facts import Facts, read_facts

if TYPE_CHECKING:
    from mlflow import MlflowClient

_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_FILE_STORE": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # its own seven take minutes to say that nobody answers
}
_SEAL = "edgeproof_record_sha256"
_METRICS_AT_ONCE, _PARAMETERS_AT_ONCE = 1000, 100
"""What MLflow takes in one request."""
_LONGEST_TAG = 5000


@dataclass(frozen=True)
class ExportedRun:
    """Where a run stands in MLflow.

    Attributes:
        tracking: the store, without a password.
        experiment: its name.
        run_id: of the parent.
        is_new: False where the same record was exported before, and nothing was written.
        metrics: how many numbers the children hold.
    """

    tracking: str
    experiment: str
    run_id: str
    is_new: bool
    metrics: int


def export_to_mlflow(
    run: RunFolder,
    tracking: str | None = None,
    experiment: str | None = None,
    with_models: bool = False,
    progress: Progress = no_progress,
) -> ExportedRun:
    """Write a run into a store of MLflow; a record that is there already is left as it is.

    Args:
        run: the folder, with its report.
        tracking: a folder, or the address of a server or a database; None for `mlruns` here.
        experiment: name of the experiment; None for the run's own.
        with_models: whether the compiled files go along.
        progress: called with the variants done and all of them.

    Raises:
        UsageError: MLflow is missing, the folder is no run or not as it was recorded, it has no report, or the store
            lies in a run's folder.
        StageError: the store refused.
    """
    facts = read_facts(run)
    refuse_changed(run, facts.record)
    if not (run.report / "index.html").is_file():
        raise UsageError(
            f"{run.root}: expected a run with its report, found none. Write it: `edgeproof report {run.root}`."
        )
    address = _address(tracking or "mlruns")
    seal = facts.record.sha256 or sha256_of_file(run.record)
    name = shortened(printable(experiment or facts.record.name), 400)
    with _mlflow_settled():
        _require_mlflow()
        from mlflow.exceptions import MlflowException

        try:
            client = _client(address)
            number = _experiment(client, name)
            if (found := _whole_one(client, number, seal)) is not None:
                return ExportedRun(_without_password(address), name, found, False, 0)
            parent, metrics = _write(client, number, run, facts, seal, with_models, progress)
        except OSError as error:
            if address.startswith("file:"):
                raise write_refused(Path(urlsplit(address).path), error) from error
            raise _refused(address, error) from error
        except MlflowException as error:
            raise _refused(address, error) from error
    return ExportedRun(_without_password(address), name, parent, True, metrics)


def _write(
    client: MlflowClient,
    experiment: str,
    run: RunFolder,
    facts: Facts,
    seal: str,
    with_models: bool,
    progress: Progress,
) -> tuple[str, int]:
    """Write the parent, its files and its children; what was not finished is never taken for whole."""
    record = facts.record
    parent = client.create_run(experiment, run_name=shortened(record.name, 200), tags=_tags(run, facts, seal))
    parent_id = parent.info.run_id
    _log(client, parent_id, {}, parameters_of(record.configuration))
    for path in (run.record, run.signature, *(run.report / name for name in REPORT_FILES)):
        if path.is_file():
            client.log_artifact(parent_id, str(path), None if path.parent == run.root else "report")
    total = 0
    for done, variant in enumerate(record.variants):
        progress(done, len(record.variants))
        tags = {"mlflow.parentRunId": parent_id, "edgeproof_file_sha256": variant.sha256}
        child = client.create_run(experiment, run_name=variant.variant, tags=tags).info.run_id
        metrics = metrics_of(one for one in facts.measured_everywhere if one.variant == variant.variant)
        told = {"variant": variant.variant, "method": variant.method, "size_bytes": str(variant.size_bytes)}
        _log(client, child, metrics, {**told, **_prefixed("settings", parameters_of(variant.settings))})
        if with_models:
            client.log_artifact(child, str(run.root / variant.path), "model")
        client.set_terminated(child)
        total += len(metrics)
    for floor in UNINFORMED:
        of_floor = metrics_of(one for one in facts.measured_everywhere if one.variant == floor)
        _log(client, parent_id, {f"{floor}.{name}": value for name, value in of_floor.items()}, {})
        total += len(of_floor)
    client.set_terminated(parent_id)
    return parent_id, total


def _tags(run: RunFolder, facts: Facts, seal: str) -> dict[str, str]:
    record, verdict = facts.record, outcome(facts)
    summary = run.report / "summary.md"
    absent = sum(one.value is None for one in facts.measured_everywhere)
    tags = {
        _SEAL: seal,
        "edgeproof_version": record.environment.edgeproof or "unknown",
        "edgeproof_decision": f"{verdict.word}: {verdict.headline}",
        "edgeproof_exit_code": str(int(verdict.exit_code)),
        "edgeproof_dataset": record.dataset,
        "edgeproof_synthetic": str(record.synthetic).lower(),
        "edgeproof_processor": record.environment.cpu.model,
        "edgeproof_not_measured": str(absent),
        "mlflow.note.content": summary.read_text(encoding="utf-8") if summary.is_file() else "",
    }
    return {name: shortened(value, _LONGEST_TAG) for name, value in tags.items()}


def _prefixed(prefix: str, values: Mapping[str, str]) -> dict[str, str]:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def _log(client: MlflowClient, run_id: str, metrics: Mapping[str, float], parameters: Mapping[str, str]) -> None:
    from mlflow.entities import Metric, Param

    now = int(time.time() * 1000)
    numbers = [Metric(name, value, now, 0) for name, value in metrics.items()]
    texts = [Param(name, value) for name, value in parameters.items()]
    for at in range(0, len(numbers), _METRICS_AT_ONCE):
        client.log_batch(run_id, metrics=numbers[at : at + _METRICS_AT_ONCE])
    for at in range(0, len(texts), _PARAMETERS_AT_ONCE):
        client.log_batch(run_id, params=texts[at : at + _PARAMETERS_AT_ONCE])


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name))
    if found.lifecycle_stage != "active":
        raise UsageError(
            f"--experiment {name}: expected one that can be written, found a deleted one. Restore it in MLflow, or "
            "choose another name."
        )
    return str(found.experiment_id)


def _whole_one(client: MlflowClient, experiment: str, seal: str) -> str | None:
    """Return the run that holds a record already; one that was interrupted is deleted, with its children."""
    for found in client.search_runs([experiment], f"tags.{_SEAL} = '{seal}'"):
        if found.info.status == "FINISHED":
            return str(found.info.run_id)
        for child in client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{found.info.run_id}'"):
            client.delete_run(child.info.run_id)
        client.delete_run(found.info.run_id)
    return None


def _address(tracking: str) -> str:
    if "://" in tracking or tracking.startswith("databricks"):
        return tracking
    folder = Path(tracking)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--tracking {tracking}: expected a folder or an address, found a file. Choose another one.")
    refuse_inside_a_run(folder, "--tracking")
    return folder.resolve().as_uri()


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    if "@" not in parts.netloc:
        return address
    return parts._replace(netloc=f"…@{parts.netloc.rpartition('@')[2]}").geturl()


def _refused(address: str, error: Exception) -> StageError:
    shown = _without_password(address)
    why = str(error).replace(address, shown).partition("\n")[0]
    return StageError(
        f"--tracking {shown}: expected a store of MLflow that takes the run, found one that refused ({why[:300]}). "
        "What was begun there is deleted by the next export; mend the store and export again."
    )


@contextmanager
def _mlflow_settled() -> Iterator[None]:
    """Let MLflow tell nobody, warn of nothing and keep its files, as long as the block runs."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _client(address: str) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=address)


def _require_mlflow() -> None:
    try:
        import mlflow  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "export-mlflow: expected the package mlflow-skinny or mlflow, found none. Install it with "
            "`pip install 'edgeproof[mlflow]'`."
        ) from error
