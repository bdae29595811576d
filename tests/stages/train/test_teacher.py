"""The teacher's features as hints: their error by hand, what is noted when, and what a student makes of them."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from foundation.artifacts import Checkpoint
from foundation.errors import UsageError
from foundation.run_folder import RunFolder
from stages.network import PactSettings
from stages.network.checkpoint import load_checkpoint, save_checkpoint
from stages.network.normalisation import normalise
from stages.network.relus import relu_modules
from stages.train.settings import AugmentSettings, DistillationSettings, SaliencyGuidedSettings, TrainSettings
from stages.train.teacher import feature_error, features_of
from stages.train.trainer import train


def settings(**changes):
    values = {
        "network": "cnn-small",
        "pact": None,
        "saliency_guided": None,
        "epochs": 3,
        "batch_size": 24,
        "augment": AugmentSettings(flip="none"),
        "threads": 1,
        **changes,
    }
    return TrainSettings(**values)


def poison(path):
    spec, network = load_checkpoint(Checkpoint.at(path))
    torch.nn.init.constant_(next(network.parameters()), float("nan"))
    save_checkpoint(path, spec, network)


def test_the_error_is_relative_to_each_image_and_layer_alike():
    # Image by image |s − t|² / |t|²: (1 + 0) / 5 and 9 / 9 in the first layer, 0 and 1 in the second, 10,000 times
    # as large.
    hints = [torch.tensor([[1.0, 2.0], [0.0, 3.0]]), torch.tensor([[[1e4]], [[1e4]]])]
    features = [torch.tensor([[2.0, 2.0], [0.0, 0.0]]), torch.tensor([[[1e4]], [[2e4]]])]
    assert feature_error(features, hints).item() == pytest.approx((0.2 + 1 + 0 + 1) / 4)


def test_what_a_student_passes_nothing_of_is_an_error_of_one():
    hints = [torch.rand(3, 4, 5, 5) + 0.1, torch.rand(3, 2) + 0.1]
    assert feature_error([torch.zeros_like(hint) for hint in hints], hints).item() == pytest.approx(1.0)
    assert feature_error(hints, hints).item() == 0.0


def test_a_dead_layer_is_left_out_and_an_image_that_passes_next_to_nothing_does_not_rule():
    student = torch.ones(2, 4, requires_grad=True)
    error = feature_error([student], [torch.zeros(2, 4)])
    error.backward()
    assert error.item() == 0.0
    assert student.grad.abs().max().item() == 0.0
    # The layer's mean square is 50; of the second image, which passes nothing, the error is relative to a thousandth.
    hint = torch.tensor([[10.0], [0.0]])
    assert feature_error([torch.tensor([[10.0], [1.0]])], [hint]).item() == pytest.approx(1 / 0.05 / 2)


def test_the_gradient_of_the_error_is_autograd_s_of_the_formula():
    student = torch.rand(3, 4, dtype=torch.float32, requires_grad=True)
    hint = torch.rand(3, 4) + 0.5
    feature_error([student], [hint]).backward()
    expected = 2 * (student.detach() - hint) / hint.square().sum(1, keepdim=True) / 3
    assert torch.allclose(student.grad, expected, rtol=1e-5, atol=1e-7)


def test_only_the_first_pass_is_noted_and_nothing_afterwards():
    relus = (nn.ReLU(), nn.ReLU())
    network = nn.Sequential(relus[0], nn.Linear(2, 2), relus[1])
    first, masked = torch.tensor([[1.0, -1.0]]), torch.tensor([[5.0, 5.0]])
    with features_of(relus) as features:
        network(first)
        network(masked)
    network(masked)
    assert len(features) == 2
    assert features[0].tolist() == [[1.0, 0.0]]


def error_of(student, teacher, data):
    """Mean feature error on the validation images, both in evaluation mode."""
    (spec, ours), (_, theirs) = load_checkpoint(student), load_checkpoint(teacher)
    images = normalise(torch.from_numpy(data.validation.images[:64]), spec.mean, spec.std)
    found = []
    for network in (ours, theirs):
        watched, relus = relu_modules(network, "test")
        with torch.no_grad(), features_of(relus) as features:
            watched(images)
        found.append(features)
    return feature_error(*found).item()


@pytest.mark.parametrize(
    ("pact", "guided"),
    [
        pytest.param(None, None, id="float"),
        pytest.param(PactSettings(), None, id="pact"),
        pytest.param(PactSettings(), SaliencyGuidedSettings(), id="pact+saliency-guided"),
    ],
)
def test_a_student_that_is_given_hints_passes_what_its_teacher_passes(stripes, tmp_path, pact, guided):
    teacher = train(stripes, settings(), RunFolder(tmp_path / "teacher"), "key")
    errors = {}
    for weight in (0.0, 10.0):
        distillation = DistillationSettings(teacher=teacher.path, feature_weight=weight)
        recipe = settings(distillation=distillation, pact=pact, saliency_guided=guided, seed=7)
        run = RunFolder(tmp_path / str(weight))
        errors[weight] = error_of(train(stripes, recipe, run, "key"), teacher, stripes)
        assert max(epoch["validation_balanced_accuracy"] for epoch in json.loads(run.history.read_text())) >= 0.9
    # From other initial weights the two share nothing, unless they are told to.
    assert errors[10.0] < errors[0.0] / 2


def test_hints_end_after_their_share_of_the_steps(stripes, tmp_path):
    teacher = train(stripes, settings(), RunFolder(tmp_path / "teacher"), "key")
    losses = {}
    for weight, share in ((0.0, 1.0), (10.0, 1.0), (10.0, 0.5)):
        distillation = DistillationSettings(teacher=teacher.path, feature_weight=weight, feature_share=share)
        run = RunFolder(tmp_path / f"{weight}-{share}")
        train(stripes, settings(epochs=2, distillation=distillation, seed=7), run, "key")
        losses[weight, share] = [epoch["train_loss"] for epoch in json.loads(run.history.read_text())]
    assert losses[10.0, 0.5][0] == losses[10.0, 1.0][0]  # the first epoch is the first half
    assert losses[10.0, 0.5][1] < losses[10.0, 1.0][1] / 2  # of which features are most
    assert losses[10.0, 0.5][1] < losses[0.0, 1.0][0]


def test_hints_of_another_network_are_refused_where_its_answers_are_taken(stripes, tmp_path):
    teacher = train(stripes, settings(epochs=1), RunFolder(tmp_path / "teacher"), "key")
    student = settings(epochs=1, network="cnn-medium", distillation=DistillationSettings(teacher=teacher.path))
    train(stripes, student, RunFolder(tmp_path / "answers"), "key")
    hinted = DistillationSettings(teacher=teacher.path, feature_weight=1.0)
    with pytest.raises(
        UsageError,
        match=r"feature_weight: expected a teacher of the student's own network 'cnn-medium', found",
    ):
        train(stripes, student.model_copy(update={"distillation": hinted}), RunFolder(tmp_path / "hints"), "key")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        pytest.param(lambda path: path.unlink(), "expected a checkpoint at .*, found none", id="missing"),
        pytest.param(lambda path: path.write_text("a teacher"), "expected a checkpoint written by", id="text"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:200]), "expected a checkpoint", id="cut"),
        pytest.param(poison, r"expected finite weights, found NaN", id="nan"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused_by_the_setting_that_names_it(stripes, tmp_path, damage, expected):
    teacher = train(stripes, settings(epochs=0), RunFolder(tmp_path / "teacher"), "key")
    damage(teacher.path)
    recipe = settings(distillation=DistillationSettings(teacher=teacher.path))
    with pytest.raises(UsageError, match=rf"^train\.distillation\.teacher: .*{expected}"):
        train(stripes, recipe, RunFolder(tmp_path / "student"), "key")


def test_a_teacher_of_otherwise_normalised_images_is_refused(stripes, tmp_path):
    teacher = train(stripes, settings(epochs=0), RunFolder(tmp_path / "teacher"), "key")
    recipe = settings(distillation=DistillationSettings(teacher=teacher.path))
    with pytest.raises(UsageError, match=r"expected mean \(0\.25,\), found \(0\.5,\)"):
        train(replace(stripes, mean=(0.25,)), recipe, RunFolder(tmp_path / "student"), "key")
