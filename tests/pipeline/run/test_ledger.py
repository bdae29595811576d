"""Reuse: the same key and untouched outputs, or the work is done again; failures are never kept."""

import pytest
from small_run import small_record

from foundation.errors import ExitCode, NotMeasuredError, StageError, UsageError
from foundation.record import read_record
from foundation.run_folder import RunFolder
from foundation.versions import versions_of
from pipeline.run.ledger import Ledger, Stage

RECORD = small_record()


def stage(run, **changes):
    values = {"kind": "s", "inputs": {"a": "1"}, "settings": {"k": 1}, "modules": ("reports.formats",), "outputs": ()}
    return Stage(**{**values, "outputs": (run.root / "out.txt",), **changes})


class Work:
    def __init__(self, run):
        self.run, self.calls = run, 0

    def compute(self):
        self.calls += 1
        (self.run.root / "out.txt").write_text("result")
        return "computed"

    def read(self):
        return "read"


@pytest.fixture
def run(tmp_path):
    return RunFolder(tmp_path)


def perform(run, work, **changes):
    ledger = Ledger.open(run, RECORD)
    return ledger.perform(stage(run, **changes), work.compute, work.read), ledger


def test_a_second_time_nothing_is_computed(run):
    work = Work(run)
    assert perform(run, work)[0] == "computed"
    result, ledger = perform(run, work)
    assert (result, work.calls, ledger.record.stages[0].status) == ("read", 1, "reused")
    assert ledger.record.all_stages_succeeded


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": {"a": "2"}},
        {"settings": {"k": 2}},
        {"kind": "other"},
        {"subject": "fp16"},
        {"modules": ("foundation.errors",)},
    ],
)
def test_whatever_the_result_depends_on_makes_it_new(run, changes):
    work = Work(run)
    perform(run, work)
    assert perform(run, work, **changes)[0] == "computed"


@pytest.mark.parametrize("damage", [lambda path: path.write_text("touched"), lambda path: path.unlink()])
def test_an_output_that_was_touched_is_made_again(run, damage):
    work = Work(run)
    perform(run, work)
    damage(run.root / "out.txt")
    assert perform(run, work)[0] == "computed"
    assert (run.root / "out.txt").read_text() == "result"


@pytest.mark.parametrize(
    ("error", "status"),
    [(StageError("broke"), "failed"), (UsageError("bad"), "failed"), (NotMeasuredError("no tool"), "not_measured")],
)
def test_a_failure_is_recorded_and_tried_again(run, error, status):
    def fail():
        raise error

    ledger = Ledger.open(run, RECORD)
    ledger.perform(stage(run, kind="before"), Work(run).compute, lambda: "read")
    with pytest.raises(type(error)):
        ledger.perform(stage(run), fail, lambda: "read")
    _, record = read_record(run).stages
    assert (record.status, record.error, record.outputs) == (status, str(error), {})
    assert not ledger.record.all_stages_succeeded
    assert perform(run, Work(run))[0] == "computed"


def test_a_result_that_cannot_be_read_again_is_a_failure_too(run):
    def refuse():
        raise UsageError("not what its record says")

    work = Work(run)
    first = Ledger.open(run, RECORD)
    first.perform(stage(run, kind="before"), work.compute, work.read)
    first.perform(stage(run), work.compute, work.read)
    ledger = Ledger.open(run, RECORD)
    ledger.perform(stage(run, kind="before"), work.compute, work.read)
    with pytest.raises(UsageError, match="not what its record says"):
        ledger.perform(stage(run), work.compute, refuse)
    assert ledger.record.stages[-1].status == "failed"
    assert not ledger.record.all_stages_succeeded


def test_a_first_stage_that_refuses_its_input_leaves_no_run(run):
    def fail():
        raise UsageError("no images")

    with pytest.raises(UsageError):
        Ledger.open(run, RECORD).perform(stage(run), fail, lambda: "read")
    assert not run.record.exists()


def test_an_interrupted_run_keeps_the_records_of_stages_it_has_not_reached(run):
    work = Work(run)
    ledger = Ledger.open(run, RECORD)
    for name in ("first", "second"):
        ledger.perform(stage(run, kind=name), work.compute, work.read)
    killed = Ledger.open(run, RECORD)
    killed.perform(stage(run, kind="first"), work.compute, work.read)
    resumed = Ledger.open(run, RECORD)
    assert resumed.perform(stage(run, kind="second"), work.compute, work.read) == "read"
    assert work.calls == 2


def test_a_finished_run_drops_stages_that_are_gone(run):
    work = Work(run)
    perform(run, work, kind="quantize", subject="removed")
    _, ledger = perform(run, work, kind="kept")
    assert [stage.name for stage in read_record(run).stages] == ["kept", "quantize/removed"]
    ledger.conclude((), ExitCode.PASSED)
    record = read_record(run)
    assert ([stage.name for stage in record.stages], record.exit_code) == (["kept"], 0)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"format_version": 1}',
        '{"format_version": 2, "stages": [{"name": "x"}]}',
        '{"format_version": 99, "stages": []}',
        "{",
    ],
)
def test_a_folder_with_another_record_is_refused(run, content):
    run.record.write_text(content)
    with pytest.raises(UsageError, match=r"run\.json"):
        Ledger.open(run, RECORD)


def test_the_key_is_a_whole_sha256_with_the_versions_in_it(run, monkeypatch):
    key = stage(run).key
    assert len(key) == 64
    assert stage(run).key == key
    monkeypatch.setattr("pipeline.run.ledger.versions_of", lambda packages: dict.fromkeys(packages, "0"))
    assert stage(run).key != key
    assert versions_of(("no-such-package",)) == {"no-such-package": None}
