"""Reuse: the same key and untouched outputs, or the work is done again; failures are never kept."""

import hashlib
import threading
from dataclasses import replace

import pytest
from small_run import small_record

from foundation.errors import ExitCode, NotMeasuredError, StageError, UsageError
from foundation.host_lock import computing
from foundation.record import read_record, write_record
from foundation.run_files import check_files
from foundation.run_folder import RunFolder
from foundation.versions import versions_of
from pipeline.run.ledger import Ledger
from pipeline.run.stage import Stage

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
    monkeypatch.setattr("pipeline.run.stage.versions_of", lambda packages: dict.fromkeys(packages, "0"))
    assert stage(run).key != key
    assert versions_of(("no-such-package",)) == {"no-such-package": None}


# --- what is recorded of files ---


def leaving(run, content, *, name="cache/kept.json"):
    """Return work that leaves its output and, beside it, a file that its stage does not name."""

    def compute():
        (run.root / "out.txt").write_text("result")
        (run.root / name).parent.mkdir(exist_ok=True)
        (run.root / name).write_text(content)
        return "computed"

    return compute


def once(run, compute, end=True, **changes):
    ledger = Ledger.open(run, RECORD)
    ledger.perform(stage(run, **changes), compute, lambda: "read")
    if end:
        ledger.conclude((), ExitCode.PASSED)
    return read_record(run)


def not_intact(run):
    return {one.path: one.state for one in check_files(run, read_record(run)) if one.state != "intact"}


def test_whatever_a_stage_leaves_is_recorded_with_digest_and_size(run):
    record = once(run, leaving(run, "ranges"))
    assert {path: of.size_bytes for path, of in record.files.items()} == {"cache/kept.json": 6, "out.txt": 6}
    assert record.files["cache/kept.json"].sha256 == hashlib.sha256(b"ranges").hexdigest()
    assert record.stages[0].outputs == {"out.txt": record.files["out.txt"].sha256}
    assert not_intact(run) == {}


def test_what_a_later_run_writes_anew_is_recorded_anew_and_what_is_gone_is_forgotten(run):
    once(run, leaving(run, "first"))
    record = once(run, leaving(run, "second"), settings={"k": 2})
    assert record.files["cache/kept.json"].sha256 == hashlib.sha256(b"second").hexdigest()
    (run.root / "cache" / "kept.json").unlink()
    assert set(once(run, leaving(run, "unused"), settings={"k": 2}).files) == {"out.txt"}


def test_an_edit_between_two_runs_stays_one_whichever_stages_run(run):
    once(run, leaving(run, "first"))
    (run.root / "cache" / "kept.json").write_text("edited")
    for end in (False, False, True):
        once(run, leaving(run, "unused"), end)
        assert not_intact(run) == {"cache/kept.json": "changed"}


def test_what_somebody_adds_to_a_finished_run_stays_none_of_it(run):
    once(run, Work(run).compute)
    (run.root / "notes.txt").write_text("mine")
    for _ in range(2):
        once(run, Work(run).compute)
        assert not_intact(run) == {"notes.txt": "unrecorded"}


def test_what_a_killed_run_could_not_record_belongs_to_the_run_that_goes_on(run):
    once(run, Work(run).compute, end=False)
    (run.root / "half.json").write_text("what the next stage left before the kill")
    assert set(once(run, Work(run).compute).files) == {"half.json", "out.txt"}


def test_what_lies_in_the_folder_of_a_new_run_belongs_to_it(run):
    (run.root / "kept.json").write_text("of a run whose record was deleted")
    assert set(once(run, Work(run).compute).files) == {"kept.json", "out.txt"}


def test_a_record_of_the_former_format_is_completed(run):
    once(run, leaving(run, "ranges"))
    write_record(run, replace(read_record(run), format_version=2, files={}))
    record = once(run, Work(run).compute)
    assert (record.format_version, record.stages[0].status) == (3, "reused")
    assert set(record.files) == {"cache/kept.json", "out.txt"}


def test_an_edited_record_is_refused(run):
    once(run, Work(run).compute)
    run.record.write_text(run.record.read_text().replace('"status": "done"', '"status": "failed"'))
    with pytest.raises(UsageError, match=r"run\.json: expected sha256 \w{12} of its content, found \w{12}"):
        Ledger.open(run, RECORD)


def test_what_rests_on_times_is_computed_beside_no_other_work(run):
    work, entered = Work(run), threading.Event()

    def compute():
        entered.set()
        return work.compute()

    def perform_it(takes_times):
        ledger = Ledger.open(run, RECORD)
        ledger.perform(stage(run, takes_times=takes_times, settings={"k": takes_times}), compute, work.read)

    with computing():  # another night's task
        perform_it(False)
        assert entered.is_set()
        entered.clear()
        thread = threading.Thread(target=perform_it, args=(True,))
        thread.start()
        assert not entered.wait(0.3)
    thread.join(20)
    assert (entered.is_set(), work.calls) == (True, 2)
