"""The tuned variant from the float file to the record beside the chosen one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto
from quantizable import float_proto, prepared_data, write_float_model

from foundation.artifacts import OnnxModel
from foundation.note_parts import Estimate
from onnx_files.judged_output import explained_tensor
from stages.quantize.methods.static import StaticSettings, quantize_static
from stages.search.candidates import write_twin
from stages.search.study import TunedSettings
from stages.search.tuned import ROUNDING_IMAGES, tune
from stages.validate.intervals.paired import tango_interval

SETTINGS = TunedSettings(
    accuracy_drop=1.0,
    agreement=0.0,
    saliency_spearman=-1.0,
    trials=3,
    images=16,
    scored_images=20,
    explained_images=6,
    latency_rounds=5,
)
DATA = prepared_data()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tuned")


@pytest.fixture(scope="module")
def fp32(folder: Path) -> OnnxModel:
    return write_float_model(folder / "fp32.onnx", float_proto())


@pytest.fixture(scope="module")
def steps() -> list[tuple[int, int]]:
    return []


@pytest.fixture(scope="module")
def tuned(fp32: OnnxModel, folder: Path, steps: list[tuple[int, int]]) -> OnnxModel:
    return tune(
        fp32, "tuned", SETTINGS, DATA, folder / "tuned.onnx", "a", lambda done, total: steps.append((done, total))
    )


def test_the_file_is_the_one_that_the_chosen_settings_compile(tuned: OnnxModel, fp32: OnnxModel, tmp_path: Path):
    chosen = tuned.notes.chosen
    static = StaticSettings(
        calibration=chosen.calibration,
        recovery={
            "equalization": chosen.equalization,
            "bias_correction": chosen.bias_correction,
            "compensated_rounding": {"images": ROUNDING_IMAGES} if chosen.compensated_rounding else None,
        },
        float_layers=tuned.notes.file.float_layers,
        images=16,
    )
    again = quantize_static(fp32, "tuned", static, DATA, tmp_path / "tuned.onnx")
    assert again.sha256 == tuned.sha256
    assert len(tuned.notes.file.float_layers) == chosen.float_layers


def test_the_record_tells_the_whole_search(tuned: OnnxModel):
    record = json.loads(tuned.path.with_suffix(".json").read_text())
    assert record["notes"]["method"] == "tuned"
    assert record["settings"]["trials"] == 3
    assert OnnxModel.read(tuned.path).notes == tuned.notes
    assert len(tuned.notes.search) == 3
    assert all(trial.within_limits for trial in tuned.notes.search)
    assert tuned.notes.misses == {}
    levels = [layer.score.logits_sqnr_db.value for layer in tuned.notes.sensitivity]
    assert levels == sorted(levels)
    assert len(levels) == tuned.notes.file.layers
    # A layer alone costs less than all of them together.
    plain = tuned.notes.search[0].measured.score.logits_sqnr_db.value
    assert max(levels) > plain


def test_nothing_of_the_trials_is_left_but_their_journal(tuned: OnnxModel, folder: Path):
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
        "fp32.onnx", "tuned.json", "tuned.onnx", "tuned.search.jsonl",
    ]  # fmt: skip


def test_layers_looked_at_one_by_one_share_one_calibration(tuned: OnnxModel, folder: Path):
    # The plain graph's minmax for all layers and the first trial; then percentile and mse, of the plain graph and of
    # the equalized one.
    assert tuned.notes.file.layers > 1
    assert [trial.candidate.calibration for trial in tuned.notes.search] == ["minmax", "percentile", "mse"]
    assert len(list((folder / "ranges").iterdir())) == 5


def test_every_file_has_the_types_of_the_target(fp32: OnnxModel, tmp_path: Path):
    settings = SETTINGS.model_copy(update={"target": "arm64", "trials": 1})
    journal = tmp_path / "elsewhere.jsonl"
    told = tune(fp32, "tuned", settings, DATA, tmp_path / "tuned.onnx", "c", lambda done, total: None, True, journal)
    assert (told.notes.file.activation_type, told.notes.file.weight_type) == ("int8", "int8")
    names = {entry.data_type for entry in onnx.load(told.path).graph.initializer}
    assert TensorProto.INT8 in names
    assert TensorProto.UINT8 not in names
    assert journal.is_file()
    assert len(list((tmp_path / "ranges").iterdir())) == 1  # of all layers, one by one, and of the one trial


def test_time_counts_from_the_first_layer(fp32: OnnxModel, tmp_path: Path):
    brief = SETTINGS.model_copy(update={"minutes": 1e-6, "trials": 9})
    told = tune(fp32, "tuned", brief, DATA, tmp_path / "tuned.onnx", "d", lambda done, total: None)
    assert len(told.notes.search) == 1
    assert len(told.notes.sensitivity) == told.notes.file.layers


def test_an_interrupted_search_looks_at_no_layer_twice(fp32: OnnxModel, tmp_path: Path):
    def interrupt(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    short = SETTINGS.model_copy(update={"trials": 1})
    with pytest.raises(KeyboardInterrupt):
        tune(fp32, "tuned", short, DATA, tmp_path / "tuned.onnx", "e", interrupt)
    first = _layers_in(tmp_path / "tuned.search.jsonl")
    assert len(first) == 2
    told = tune(fp32, "tuned", short, DATA, tmp_path / "tuned.onnx", "e", lambda done, total: None)
    written = _layers_in(tmp_path / "tuned.search.jsonl")
    assert written[:2] == first
    assert sorted(row["layer"] for row in written) == sorted(row.layer for row in told.notes.sensitivity)


def _layers_in(journal: Path) -> list[dict]:
    entries = [json.loads(line).get("user_attr", {}) for line in journal.read_text().splitlines()]
    return [row for entry in entries for row in entry.values() if isinstance(row, dict) and "layer" in row]


def test_what_is_explained_stands_before_the_probabilities(fp32: OnnxModel):
    model = onnx.load(fp32.path)
    name = model.graph.output[0].name
    assert explained_tensor(model, model.graph.output[0].name) == name
    model.graph.node.append(onnx.helper.make_node("Softmax", [name], ["probabilities"], axis=1))
    model.graph.output[0].name = "probabilities"
    assert explained_tensor(model, model.graph.output[0].name) == name


def test_a_twin_has_the_size_of_the_images_where_the_file_takes_any(fp32: OnnxModel, tmp_path: Path):
    model = onnx.load(fp32.path)
    for axis in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        axis.dim_param = "any"
    onnx.save(model, tmp_path / "any.onnx")
    twins = [
        onnx.load(write_twin(path, tmp_path / f"{path.stem}.twin.onnx", DATA))
        for path in (fp32.path, tmp_path / "any.onnx")
    ]
    shapes = [[axis.dim_value for axis in twin.graph.input[0].type.tensor_type.shape.dim] for twin in twins]
    assert shapes == [[0, *DATA.train.images.shape[1:]]] * 2


def test_progress_counts_layers_and_trials(tuned: OnnxModel, steps: list[tuple[int, int]]):
    layers = tuned.notes.file.layers
    assert steps[-1] == (layers + 3, layers + 3)
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)


def test_of_limits_that_nothing_keeps_the_record_says_by_how_much_they_are_missed(fp32: OnnxModel, tmp_path: Path):
    strict = SETTINGS.model_copy(update={"saliency_spearman": 1.0, "trials": 2})
    told = tune(fp32, "tuned", strict, DATA, tmp_path / "tuned.onnx", "b", lambda done, total: None)
    shown = [1 + trial.measured.margins["saliency_spearman"] for trial in told.notes.search]
    assert told.notes.misses == {"saliency_spearman": pytest.approx(1 - max(shown))}
    assert told.notes.chosen == told.notes.search[shown.index(max(shown))].candidate
    assert OnnxModel.read(tmp_path / "tuned.onnx").notes.misses == told.notes.misses


def test_what_rules_a_file_out_saves_its_twin_and_its_timing(
    fp32: OnnxModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from stages.search import score

    answered = score.score_answers

    def far_off(reference, path):
        of = answered(reference, path)
        half = replace(of.evidence["agreement"], value=-0.5, lost=0.5)
        return of.model_copy(
            update={
                "agreement": of.agreement.model_copy(update={"value": 0.5}),
                "evidence": {**of.evidence, "agreement": half},
            }
        )

    strict = SETTINGS.model_copy(update={"agreement": 0.9, "trials": 2, "accuracy_drop": 1.0})
    monkeypatch.setattr(score, "score_answers", far_off)
    timed = []
    monkeypatch.setattr(score, "speedup", lambda *files: timed.append(files) or Estimate(value=2, ci95=(1, 3.5), n=5))
    told = tune(fp32, "tuned", strict, DATA, tmp_path / "tuned.onnx", "f", lambda done, total: None)
    best, other = sorted(told.notes.search, key=lambda found: found.candidate != told.notes.chosen)
    # 20 images, half of them lost, one side at 0.05 / 2.
    assert told.notes.misses == {"agreement": pytest.approx(-0.1 - tango_interval(0, 10, 20, 0.025)[0])}
    assert other.measured.score.saliency_spearman is None
    assert other.measured.reason == "its answers break a limit by more than 0.05"
    assert len(timed) == 1
    assert best.measured.speedup is None
    assert best.measured.reason.startswith("the interval of its speed-up, 1 to 3.5, spans more than a factor of 3;")


def test_what_few_images_rule_out_is_asked_no_more_of_them(
    fp32: OnnxModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from stages.search import candidates, score

    answered, asked = score.score_answers, []

    def half_lost(reference, path):
        of = answered(reference, path)
        asked.append(len(reference.images))
        lost = replace(of.evidence["agreement"], value=-0.5, lost=0.5)
        return of.model_copy(update={"evidence": {**of.evidence, "agreement": lost}})

    strict = SETTINGS.model_copy(update={"agreement": 0.9, "trials": 2, "accuracy_drop": 1.0})
    monkeypatch.setattr(score, "score_answers", half_lost)
    monkeypatch.setattr(candidates, "FIRST_IMAGES", 12)
    told = tune(fp32, "tuned", strict, DATA, tmp_path / "tuned.onnx", "f", lambda done, total: None)
    layers = len(told.notes.sensitivity)
    # Two files ruled out by 12 images, and the nearer one of them measured as a whole.
    assert asked[layers:] == [12, 12, 20]
    (early,) = (trial for trial in told.notes.search if trial.candidate != told.notes.chosen)
    assert early.measured.at_best
    assert early.measured.reason == "its answers to 12 images show that it breaks a limit"
    assert early.measured.margins["agreement"] == pytest.approx(0.1 + tango_interval(0, 6, 12, 0.025)[1])
    assert told.notes.misses["agreement"] == pytest.approx(-0.1 - tango_interval(0, 10, 20, 0.025)[0])
