"""What a search learns of a candidate, against scipy and plain numpy."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper
from scipy.stats import spearmanr

from calibration_data.prepared import PreparedSplit
from onnx_files.preprocessing import Preprocessing
from onnx_files.sessions import open_session, session_preprocessing
from stages.saliency_twin.twin_file import make_twin
from stages.search.score import part_of, reference_answers, score, speedup
from stages.validate import metrics
from stages.validate.maps.gradients import gradient_maps
from stages.validate.maps.queries import Twin


def logits_of(path, images):
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": images})[0]


@pytest.fixture
def pair(make_model, make_split):
    """A float file, another network in the place of a candidate, and the reference answers on 24 images."""
    first, other = make_model("fp32", seed=0), make_model("other", seed=1)
    twins = [make_twin(model.path, None, None, None) for model in (first, other)]
    split = make_split(n=24)
    reference = reference_answers(
        first.path, twins[0], split, "multi_class", labelled=True, images=24, explained=10, seed=3
    )
    return first, other, twins, split, reference


def test_the_float_file_scores_as_itself(pair):
    first, _, twins, _, reference = pair
    found = score(reference, first.path, twins[0])
    assert found.accuracy_drop.value == 0.0
    assert found.agreement.value == found.saliency_spearman.value == 1.0
    assert found.logits_sqnr_db.value == metrics.SQNR_CEILING_DB
    assert (found.agreement.n, found.saliency_spearman.n) == (24, 10)


def test_another_network_scores_what_scipy_and_numpy_say(pair):
    first, other, twins, split, reference = pair
    found = score(reference, other.path, twins[1])
    a, b = logits_of(first.path, split.images), logits_of(other.path, split.images)
    right, also = a.argmax(1) == split.labels, b.argmax(1) == split.labels
    assert found.accuracy_drop.value == pytest.approx(right.mean() - also.mean())
    assert found.agreement.value == pytest.approx((a.argmax(1) == b.argmax(1)).mean())
    assert found.logits_sqnr_db.value == pytest.approx(
        10 * np.log10(np.square(a).sum() / np.square(a - b).sum()), rel=1e-5
    )
    chosen, targets = reference.explained, a.argmax(1)[reference.explained]
    maps = [gradient_maps(Twin(open_session(twin, "cpu", 1), 16), split.images[chosen], targets) for twin in twins]
    expected = [spearmanr(x.ravel(), y.ravel()).statistic for x, y in zip(*maps, strict=True)]
    assert found.saliency_spearman.value == pytest.approx(np.mean(expected), abs=1e-6)
    low, high = found.saliency_spearman.ci95
    assert low < found.saliency_spearman.value < high


def test_without_labels_the_accuracy_is_not_measured(pair):
    first, _, twins, split, _ = pair
    reference = reference_answers(
        first.path, twins[0], split, "multi_class", labelled=False, images=24, explained=4, seed=0
    )
    assert score(reference, first.path, twins[0]).accuracy_drop is None


def test_labels_count_by_the_share_that_is_right(make_model, make_split):
    model, split = make_model(), make_split(n=12)
    several = PreparedSplit(**{**vars(split), "labels": np.tile([1, 0, 1], (12, 1))})
    twin = make_twin(model.path, None, None, None)
    reference = reference_answers(
        model.path, twin, several, "multi_label", labelled=True, images=12, explained=3, seed=0
    )
    found = score(reference, model.path, twin)
    assert (found.accuracy_drop.value, found.agreement.value) == (0.0, 1.0)


def test_a_speedup_is_a_ratio_of_paired_rounds(pair):
    first, _, _, split, _ = pair
    found = speedup(first.path, first.path, split.images[0], 9)
    assert found.n == 9
    assert found.ci95[0] <= found.value <= found.ci95[1]


def foreign_form(path, layout, batch):
    """Write the same network as another exporter would: height and width before the channels, or a fixed batch."""
    model = onnx.load(path)
    entry, answer = model.graph.input[0], model.graph.output[0]
    told = session_preprocessing(open_session(path, "cpu", 1))
    if layout == "NHWC":
        model.graph.node.insert(0, helper.make_node("Transpose", ["image"], ["planes"], perm=[0, 3, 1, 2]))
        model.graph.node[1].input[0] = "planes"
        channels, height, width = (axis.dim_value for axis in entry.type.tensor_type.shape.dim[1:])
        for axis, size in zip(entry.type.tensor_type.shape.dim[1:], (height, width, channels), strict=True):
            axis.dim_value = size
        told = Preprocessing(told.input_type, told.mean, told.std, told.image_size, layout="NHWC")
    if batch is not None:
        for value in (entry, answer):
            value.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.helper.set_model_props(model, told.to_metadata())
    target = path.with_name(f"{path.stem}-{layout}-{batch}.onnx")
    onnx.save(model, target)
    return target


@pytest.mark.parametrize("input_type", ["uint8", "float32"])
@pytest.mark.parametrize(("layout", "batch"), [("NHWC", None), ("NCHW", 1), ("NCHW", 4), ("NHWC", 3)])
def test_the_form_of_the_input_changes_no_number(make_model, make_split, input_type, layout, batch):
    plain = [make_model(f"m{seed}", seed=seed, channels=3, input_type=input_type).path for seed in (0, 1)]
    others = [foreign_form(path, layout, batch) for path in plain]
    split = make_split(n=13, channels=3)
    found = []
    for first, second in (plain, others):
        twins = [make_twin(path, None, None, None) for path in (first, second)]
        reference = reference_answers(
            first, twins[0], split, "multi_class", labelled=True, images=11, explained=5, seed=3
        )
        assert reference.maps.shape == (5, 8, 8)
        found.append(score(reference, second, twins[1]))
    for metric in ("accuracy_drop", "agreement", "logits_sqnr_db", "saliency_spearman"):
        expected, told = (getattr(one, metric) for one in found)
        assert told.value == pytest.approx(expected.value, abs=1e-4)
        assert told.n == expected.n
    assert speedup(others[0], others[1], split.images[0], 5).n == 5


def test_a_part_of_a_reference_has_the_answers_and_maps_of_its_own_images(make_model, make_split):
    model, split = make_model("m", channels=3).path, make_split(n=13, channels=3)
    whole = reference_answers(
        model, make_twin(model, None, None, None), split, "multi_class", True, images=11, explained=5, seed=3
    )
    part = part_of(whole, 6, 2)
    assert (len(part.images), len(part.labels), len(part.units), len(part.maps)) == (6, 6, 6, 2)
    assert part.targets.tolist() == whole.targets[[0, 2]].tolist()
    rows = [next(row for row, one in enumerate(whole.images) if (one == image).all()) for image in part.images]
    assert rows == sorted(set(rows))
    assert {*part.logits.flat} == {*whole.logits[rows].flat}
    assert (part.images[part.explained] == whole.images[whole.explained[[0, 2]]]).all()
    assert (part.maps == whole.maps[[0, 2]]).all()
    everything = part_of(whole, 100, 100)
    assert everything.explained.tolist() == whole.explained.tolist()
    assert len(everything.images) == 11
