"""The whole run on real digits: complete, honest about what is missing, reusable, resumable, the same bytes."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_run import quiet_changes

from foundation.errors import ExitCode, UsageError
from foundation.files import read_json, sha256_of_file
from foundation.lock import lock_folder
from foundation.measurements import read_measurements
from foundation.progress import Silent
from foundation.record import read_record
from foundation.run_folder import RunFolder
from pipeline.configuration_file import parse_configuration, read_configuration
from pipeline.custody.check import check_run
from pipeline.flow import compile_and_validate, run_one_night, run_until
from pipeline.judge.evidence import read_evidence
from pipeline.judge.paired_runs import pair_runs
from pipeline.machine.environment import describe
from stages.compilers import COMPILERS
from stages.quantize.neural_compressor.environment import worker_versions
from stages.validate.operating_points import read_operating_points

ROOT = Path(__file__).resolve().parents[2]
VALUES = {
    "name": "tiny",
    "data": {"source": {"name": "digits"}, "image_size": 12, "channels": 1},
    "train": {"network": "cnn-small", "epochs": 4, "augment": {"flip": "none"}, "threads": 1},
    "variants": {
        "fp16": {"method": "fp16"},
        "static-int8": {"method": "static", "images": 32},
        "inc-int8": {"method": "neural_compressor"},
        "pact-int8": {"method": "pact"},
    },
    "validation": {
        "accuracy": {"batch_size": 64, "resamples": 1000},
        "robustness": {"images": 20},
        "operating_points": {"rule": "sensitivity", "floor": 0.8, "classes": ["3"]},
        "saliency": {"images": 10, "resamples": 1000},
        "latency": {"rounds": 5, "time_budget_s": 0.0, "queries_per_round": 8, "warmup_queries": 1},
    },
    "gates": [
        {"metric": "balanced_accuracy", "variant": "fp32", "at_least": 0.5},
        {"metric": "balanced_accuracy", "variant": "pact-int8", "at_least": 0.999},
        {"metric": "accuracy", "variant": "inc-int8", "at_least": 0.1},
    ],
    "nightly": {"quiet_wait_minutes": 0.0},
}


def configuration(**changes):
    return parse_configuration({**VALUES, **changes}, "tiny", ROOT)


def hide_compressor(patch):
    """Look for the worker's environment where there is none: what is missing must be told, not skipped."""
    patch.delenv("EDGEPROOF_NEURAL_COMPRESSOR", raising=False)
    patch.setattr("stages.quantize.neural_compressor.environment.environment_folder", lambda: Path("/nowhere"))


@pytest.fixture
def without_compressor(monkeypatch):
    hide_compressor(monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("finished"))
    with pytest.MonkeyPatch.context() as patch:
        hide_compressor(patch)
        outcome = compile_and_validate(configuration(), run, Silent())
    return run, outcome


def statuses(run):
    return {stage.name: stage.status for stage in read_record(run).stages}


def output_hashes(run):
    return dict(read_record(run).outputs)


def test_what_is_missing_makes_the_evidence_incomplete_and_nothing_else(finished):
    run, outcome = finished
    assert outcome.exit_code == ExitCode.INCOMPLETE == 3
    assert statuses(run)["quantize/inc-int8"] == "not_measured"
    assert {status for name, status in statuses(run).items() if name != "quantize/inc-int8"} == {"done"}
    record = read_record(run)
    (error,) = [stage.error for stage in record.stages if stage.error]
    assert "edgeproof doctor --create-neural-compressor" in error
    assert [verdict.status for verdict in record.verdicts][0::2] == ["passed", "missing"]
    assert (record.exit_code, record.task) == (3, "multi_class")
    first, _, last = record.verdicts
    assert first.measurement.value == first.value
    assert (last.measurement.value, last.measurement.reason) == (None, error)
    assert "not measured" in (run.report / "index.html").read_text()


def test_every_number_is_there_for_every_other_variant(finished):
    run, _ = finished
    rows = read_measurements(run.measurements)
    for variant in ("fp32", "fp16", "static-int8", "pact-int8"):
        found = {row.metric: row for row in rows if row.variant == variant and row.value is not None}
        expected = {"accuracy", "balanced_accuracy", "auroc_macro", "size_bytes", "latency_p50_ms", "latency_p90_ms"}
        if variant != "fp32":
            expected |= {
                "agreement",
                "logits_sqnr_db",
                "saliency_spearman",
                "saliency_ssim",
                "saliency_top10_overlap",
            }
            expected |= {"deletion_auc", "insertion_auc"}
            expected |= {"latency_speedup"}
        assert expected <= set(found)
        assert all(found[metric].ci95 for metric in expected - {"size_bytes"})
    gradient = {row.variant for row in rows if row.where.method == "gradient" and row.value is not None}
    assert {"pact-int8", "random-map", "centre-prior"} <= gradient
    absent = [row for row in rows if row.variant == "inc-int8"]
    assert absent
    assert all(row.value is None and "create-neural-compressor" in row.reason for row in absent)


def test_one_threshold_is_chosen_with_fp32_and_kept_for_every_file(finished):
    run, _ = finished
    points = read_operating_points(run.operating_points)
    assert list(points.points) == ["3"]
    assert points.points["3"].sensitivity >= 0.8
    rows = [row for row in read_measurements(run.measurements) if row.metric == "sensitivity_at_threshold/3"]
    assert {row.variant: row.remarks["threshold"] for row in rows} == dict.fromkeys(
        ("fp32", "fp16", "static-int8", "pact-int8"), points.points["3"].probability
    )
    assert {row.remarks["operating_points"] for row in rows} == {points.sha256[:12]}
    page = (run.report / "index.html").read_text()
    assert "Operating point of 3: probability ≥ " in page


def test_a_run_paired_with_itself_changed_nowhere(finished):
    run, _ = finished
    record = read_record(run)
    pairs = pair_runs(run, record, run, record)
    assert pairs.why_not is None
    assert {variant for _, variant, _ in pairs.differences} == {"fp32", "fp16", "static-int8", "pact-int8"}
    assert {difference.value for difference in pairs.differences.values()} == {0.0}


def test_a_threshold_of_a_class_that_is_none_is_refused(tmp_path):
    validation = {**VALUES["validation"], "operating_points": {"classes": ["polyp"]}}
    with pytest.raises(UsageError, match=r"operating_points\.classes: expected names of 0, 1, .*, found 'polyp'"):
        run_until("train", configuration(validation=validation), RunFolder(tmp_path / "run"), None, Silent())


def test_the_record_says_what_everything_was_made_from(finished):
    run, _ = finished
    record = read_record(run)
    assert record.configuration_sha256 == configuration().sha256
    assert record.gates_sha256 == configuration().gates_sha256
    assert record.environment.neural_compressor is None
    for path, sha256 in output_hashes(run).items():
        assert sha256_of_file(run.root / path) == sha256
    by_name = {variant.variant: variant for variant in record.variants}
    assert by_name["static-int8"].parent_sha256 == by_name["fp32"].sha256
    assert by_name["fp32"].parent_sha256 == by_name["pact-int8"].parent_sha256 == sha256_of_file(run.checkpoint)
    report = read_json(run.report / "report.json")
    assert set(report) == {
        "format_version", "run", "environment", "stages", "variants", "measurements", "verdicts", "gate_changes"
    }  # fmt: skip


def test_every_file_of_a_finished_run_is_recorded_and_none_is_edited_quietly(finished, tmp_path):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(finished[0].root, run.root)
    checked = check_run(run, None)
    assert (checked.exit_code, checked.bad) == (0, ())
    kinds = {(path.parts[0], path.suffix): path for path in (Path(one.path) for one in checked.files)}
    assert {
        ("data", ".npy"), ("data", ".json"), ("train", ".safetensors"), ("train", ".json"), ("export", ".onnx"),
        ("export", ".json"), ("quantize", ".onnx"), ("quantize", ".json"), ("validate", ".npz"),
        ("validate", ".json"), ("report", ".html"), ("report", ".json"), ("report", ".xml"), ("report", ".md"),
    } <= set(kinds)  # fmt: skip
    assert any("ranges" in one.path for one in checked.files)
    for path in kinds.values():
        content = (run.root / path).read_bytes()
        (run.root / path).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert [one.path for one in check_run(run, None).bad] == [path.as_posix()]
        with pytest.raises(UsageError, match=f"{path}: expected sha256"):
            read_evidence(run)
        (run.root / path).write_bytes(content)
    assert check_run(run, None).exit_code == 0


@pytest.mark.long
def test_a_thousand_random_changes_of_one_byte_are_all_found(finished, tmp_path):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(finished[0].root, run.root)
    assert quiet_changes(run, 1000) == []


def test_a_changed_cache_of_ranges_changes_no_file(finished, tmp_path, without_compressor):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(finished[0].root, run.root)
    (cache,) = (run.root / "quantize" / "ranges").iterdir()
    kept = read_json(cache)
    cache.write_text(json.dumps({**kept, "ranges": {name: [-50.0, 50.0] for name in kept["ranges"]}}))
    run.model("static-int8").unlink()
    run_until("quantize", configuration(), run, "static-int8", Silent())
    assert output_hashes(run)["quantize/static-int8.onnx"] == output_hashes(finished[0])["quantize/static-int8.onnx"]
    assert check_run(run, None).bad == ()


def test_a_second_run_recomputes_nothing_but_latency(finished, without_compressor):
    run, _ = finished
    before = output_hashes(run)
    compile_and_validate(configuration(), run, Silent())
    assert {status for name, status in statuses(run).items() if name != "quantize/inc-int8"} == {"reused"}
    assert output_hashes(run) == before


def test_measurements_of_another_configuration_are_not_shown(finished, tmp_path, without_compressor):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(finished[0].root, run.root)
    assert run.measurements.exists()
    assert run.image_by_image.exists()
    changed = configuration(train={**VALUES["train"], "seed": 7, "epochs": 1})
    run_until("train", changed, run, None, Silent())
    assert not run.measurements.exists()
    assert not run.image_by_image.exists()
    assert read_record(run).exit_code is None


def test_another_processor_measures_again(finished, tmp_path, without_compressor, monkeypatch):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(finished[0].root, run.root)
    here = describe()
    another = dataclasses.replace(here.cpu, model="another", features=("avx2", "avx512_vnni"))
    elsewhere = dataclasses.replace(here, cpu=another)
    monkeypatch.setattr("pipeline.run.opening.describe", lambda: elsewhere)
    run_until("validate", configuration(), run, None, Silent())
    assert statuses(run)["validate/fp32"] == statuses(run)["validate/pact-int8"] == "done"
    assert statuses(run)["train"] == "reused"


def test_what_a_killed_process_left_half_written_goes(finished, tmp_path, without_compressor):
    run = RunFolder(tmp_path / "run")
    shutil.copytree(finished[0].root, run.root)
    leftover = run.data / ".train.abcd1234.edgeproof-partial.npz"
    leftover.write_bytes(b"half")
    run_until("train", configuration(), run, None, Silent())
    assert not leftover.exists()


def test_a_variant_that_breaks_unexpectedly_costs_only_itself(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("a kernel is missing")

    row = dataclasses.replace(COMPILERS["fp16"], compile=broken)
    monkeypatch.setattr("pipeline.run.variants.COMPILERS", {**COMPILERS, "fp16": row})
    variants = {"fp16": {"method": "fp16"}, "dynamic-int8": {"method": "dynamic"}}
    train = {"network": "cnn-small", "epochs": 1, "threads": 1}
    run = RunFolder(tmp_path)
    code = run_until("quantize", configuration(variants=variants, gates=[], train=train), run, None, Silent())
    assert code == ExitCode.INCOMPLETE
    assert (statuses(run)["quantize/fp16"], statuses(run)["quantize/dynamic-int8"]) == ("failed", "done")
    (error,) = [stage.error for stage in read_record(run).stages if stage.error]
    assert "a kernel is missing" in error


class KilledError(BaseException):
    pass


class Killer(Silent):
    """Ends the run when a stage begins or a line is said, as a kill would."""

    def __init__(self, moment):
        self.moment = moment

    @contextmanager
    def stage(self, title):
        yield lambda done, total: None
        if title == self.moment:
            raise KilledError

    def say(self, text):
        if self.moment in text:
            raise KilledError


@pytest.mark.long
def test_a_run_killed_anywhere_resumes_and_ends_with_the_same_hashes(finished, tmp_path, without_compressor):
    expected = output_hashes(finished[0])
    run = RunFolder(tmp_path)
    for moment in ("images", "epoch   2", "export fp32", "compile static-int8", "validate fp16", "latency"):
        with pytest.raises(KilledError):
            compile_and_validate(configuration(), run, Killer(moment))
    compile_and_validate(configuration(), run, Silent())
    assert output_hashes(run) == expected
    assert not list(run.root.rglob("*.edgeproof-partial*"))
    assert check_run(run, None).bad == ()


@pytest.mark.long
def test_a_run_killed_by_the_kernel_resumes_with_the_same_hashes(finished, tmp_path, without_compressor):
    expected = output_hashes(finished[0])
    config, run = tmp_path / "c.yaml", RunFolder(tmp_path / "run")
    config.write_text(json.dumps(VALUES))
    command = [sys.executable, "-m", "pipeline", "train", str(config), "--run", str(run.root)]
    with subprocess.Popen(command, env=os.environ, stderr=subprocess.DEVNULL) as process:
        state = run.checkpoint.with_name("state.pt")
        deadline = time.monotonic() + 120
        while not state.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    assert state.exists()
    run_until("export", configuration(), run, None, Silent())
    found = output_hashes(run)
    assert found
    assert {path: expected[path] for path in found} == found


def test_a_stage_alone_gives_the_bytes_of_the_whole_run(finished, tmp_path, without_compressor):
    expected = output_hashes(finished[0])
    run = RunFolder(tmp_path)
    assert run_until("quantize", configuration(), run, "static-int8", Silent()) == ExitCode.PASSED
    found = output_hashes(run)
    assert "quantize/static-int8.onnx" in found
    assert "quantize/fp16.onnx" not in found
    assert {path: expected[path] for path in found} == found


def test_two_runs_at_once_in_one_folder_are_refused(tmp_path):
    with lock_folder(tmp_path), pytest.raises(UsageError, match=r"in use by process \d+.*Wait"):
        compile_and_validate(configuration(), RunFolder(tmp_path), Silent())


def test_images_that_are_not_there_leave_no_half_a_run(tmp_path):
    data = {"source": {"name": "folder", "root": str(tmp_path / "missing")}}
    with pytest.raises(UsageError, match=r"missing"):
        compile_and_validate(configuration(data=data), RunFolder(tmp_path / "run"), Silent())
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_night_records_itself_even_when_it_is_red(tmp_path, without_compressor):
    variants = {"inc-int8": {"method": "neural_compressor"}}
    gates = [VALUES["gates"][2]]
    train = {"network": "cnn-small", "epochs": 1, "threads": 1}
    night = run_one_night(configuration(variants=variants, gates=gates, train=train), tmp_path, Silent())
    assert night.exit_code == 3
    assert night.comparison is None
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert lines[-1]["exit_code"] == 3
    assert (night.run.report / "comparison.md").exists()


@pytest.mark.long
def test_the_digits_example_passes_all_its_gates(tmp_path):
    if worker_versions() is None:
        pytest.skip(
            "the environment of Intel Neural Compressor is not there: edgeproof doctor tells how to create it"
        )
    outcome = compile_and_validate(read_configuration(ROOT / "examples/digits.yaml"), RunFolder(tmp_path), Silent())
    assert [verdict.status for verdict in outcome.verdicts] == ["passed"] * 5
    assert outcome.exit_code == 0
    assert read_record(outcome.run).environment.neural_compressor["neural_compressor"] == "3.7.1"
