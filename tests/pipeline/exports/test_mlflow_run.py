"""A run in MLflow: each number with its interval under its variant, once, and nothing over a network unasked."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_run import MEASUREMENTS, VARIANT, write_run

from foundation.errors import DiskError, StageError, UsageError
from foundation.measurements import Measurement, Where
from foundation.notes import ExportNotes
from foundation.record import VariantRecord, read_record, write_record
from foundation.run_files import record_of_file
from foundation.run_folder import RunFolder
from pipeline.custody.check import check_run
from pipeline.custody.report_again import report_again
from pipeline.exports.mlflow_run import export_to_mlflow
from pipeline.exports.mlflow_values import metrics_of, parameters_of

pytest.importorskip("mlflow", reason="mlflow-skinny is an extra")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: Any) -> None:
        raise AssertionError(f"a connection to {address}")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    run = write_run(tmp_path / "run", MEASUREMENTS)
    variants = []
    for name in ("fp32", VARIANT):
        path = run.model(name)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
        where = path.relative_to(run.root).as_posix()
        variants.append(VariantRecord(name, "export", where, "0" * 64, 4, None, {"bits": 8}, ExportNotes()))
    record = read_record(run)
    files = {**record.files}
    for variant in variants:
        files[variant.path] = record_of_file(run.root / variant.path)
    configuration = {"name": "small", "gates": [{"metric": "accuracy", "at_least": 0.8}], "data": {"size": 64}}
    write_record(run, replace(record, variants=tuple(variants), files=files, configuration=configuration))
    report_again(run)
    return run


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a test read MLflow's files as the export writes them."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return


def client_of(store: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=store.as_uri())


def test_every_number_stands_under_its_variant_with_its_interval(
    run: RunFolder, tmp_path: Path, allowed: None
) -> None:
    exported = export_to_mlflow(run, str(tmp_path / "store"))
    client = client_of(tmp_path / "store")
    parent = client.get_run(exported.run_id)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["gates.0.at_least"] == "0.8"
    assert parent.data.params["data.size"] == "64"
    assert parent.data.tags["edgeproof_record_sha256"] == read_record(run).sha256
    assert parent.data.tags["mlflow.note.content"].startswith("## ")
    children = {
        child.info.run_name: child
        for child in client.search_runs([parent.info.experiment_id], f"tags.mlflow.parentRunId = '{exported.run_id}'")
    }
    assert set(children) == {"fp32", VARIANT}
    found = children[VARIANT].data.metrics
    assert (found["accuracy"], found["accuracy.ci95_low"], found["accuracy.ci95_high"]) == (0.9, 0.85, 0.94)
    assert (found["accuracy.n"], found["latency_p50_ms.threads-1.batch_size-1"]) == (200, 10.0)
    assert children["fp32"].data.metrics["accuracy"] == 0.91
    assert sum(len(child.data.metrics) for child in children.values()) == exported.metrics
    names = {one.path for one in client.list_artifacts(exported.run_id, "report")}
    assert {"report/index.html", "report/report.json", "report/measurements.csv"} <= names
    assert check_run(run, None).exit_code == 0


def test_the_same_record_is_exported_once_and_another_one_again(
    run: RunFolder, tmp_path: Path, allowed: None
) -> None:
    store = tmp_path / "store"
    first, second = (export_to_mlflow(run, str(store)) for _ in range(2))
    assert (first.is_new, second.is_new) == (True, False)
    assert first.run_id == second.run_id
    write_record(run, replace(read_record(run), dataset="another"))
    assert export_to_mlflow(run, str(store)).run_id != first.run_id
    assert len(client_of(store).search_runs([client_of(store).get_experiment_by_name("small").experiment_id])) == 6


def test_what_was_interrupted_is_deleted_and_written_anew(run: RunFolder, tmp_path: Path, allowed: None) -> None:
    store = tmp_path / "store"
    first = export_to_mlflow(run, str(store))
    client = client_of(store)
    client.update_run(first.run_id, status="RUNNING")
    second = export_to_mlflow(run, str(store))
    assert second.is_new
    assert client.get_run(first.run_id).info.lifecycle_stage == "deleted"
    number = client.get_experiment_by_name("small").experiment_id
    assert len(client.search_runs([number])) == 3


def test_the_compiled_files_go_along_on_request(run: RunFolder, tmp_path: Path, allowed: None) -> None:
    exported = export_to_mlflow(run, str(tmp_path / "store"), "mine", with_models=True)
    assert exported.experiment == "mine"
    found = sorted(path.read_bytes() for path in (tmp_path / "store").rglob("*.onnx"))
    assert found == [b"fp32", VARIANT.encode()]


def test_the_environment_is_as_it_was(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    before = dict(os.environ)
    export_to_mlflow(run, str(tmp_path / "store"))
    assert dict(os.environ) == before


def test_a_run_without_a_report_an_edited_one_and_a_foreign_folder_are_refused(
    run: RunFolder, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"run\.json"):
        export_to_mlflow(RunFolder(tmp_path), str(tmp_path / "store"))
    bare = write_run(tmp_path / "bare")
    with pytest.raises(UsageError, match=r"expected a run with its report, found none\. Write it: `edgeproof report"):
        export_to_mlflow(bare, str(tmp_path / "store"))
    run.measurements.write_text(run.measurements.read_text().replace("0.9,", "0.99,"))
    with pytest.raises(UsageError, match="It was changed after the run wrote it"):
        export_to_mlflow(run, str(tmp_path / "store"))
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("inside", ["mlruns", "report/mlruns", ""])
def test_a_store_in_a_run_is_refused(run: RunFolder, inside: str) -> None:
    with pytest.raises(UsageError, match="expected a place outside of a run"):
        export_to_mlflow(run, str(run.root / inside))


def test_a_store_that_is_a_file_or_cannot_be_written_is_one_sentence(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="expected a folder or an address, found a file"):
        export_to_mlflow(run, str(tmp_path / "file"))
    with pytest.raises((DiskError, StageError), match=r"could not be written|refused"):
        export_to_mlflow(run, str(tmp_path / "file" / "below"))


def test_a_server_that_does_not_answer_is_one_sentence_without_the_password(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def silent(self: socket.socket, address: Any) -> None:
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket.socket, "connect", silent)
    with pytest.raises(StageError, match=r"--tracking http://…@127\.0\.0\.1:9: expected a store") as refused:
        export_to_mlflow(run, "http://ann:secret@127.0.0.1:9")
    assert "secret" not in str(refused.value)


def test_names_that_mlflow_refuses_stay_apart() -> None:
    names = ["日", "本", "=1+1", "a/b", "x" * 400, "a b"]
    found = metrics_of(Measurement(f"auroc/{name}", number / 10, "share", "v") for number, name in enumerate(names))
    assert len(found) == len(names)
    assert list(found.values()) == [number / 10 for number in range(len(names))]
    assert all(len(name) <= 250 and "/" not in name and name.isascii() for name in found)
    assert list(found)[5] == "auroc.a b"


def test_what_is_usual_is_left_out_of_a_name_and_the_rest_is_in_it() -> None:
    where = Where("openvino", "validation", threads=2, subgroup="sex: female", per="patient", change="jpeg 3")
    found = metrics_of([Measurement("accuracy", 0.5, "share", "v", where), Measurement("brier", None, "share", "v")])
    (name,) = found
    assert name == (
        "accuracy.provider-openvino.split-validation.threads-2.subgroup-sex_ female.per-patient.change-jpeg 3"
    )


def test_a_configuration_is_a_parameter_per_leaf() -> None:
    found = parameters_of({"a": {"b": [1, 2], "c": None}, "gates": [{"x": True}], "long": "y" * 9000, "empty": {}})
    assert {name: found[name] for name in ("a.b", "a.c", "gates.0.x", "empty")} == {
        "a.b": "[1, 2]", "a.c": "null", "gates.0.x": "true", "empty": "{}"
    }  # fmt: skip
    assert len(found["long"]) == 6000
    assert json.loads(found["a.b"]) == [1, 2]
