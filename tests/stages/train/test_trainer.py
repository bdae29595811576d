"""Training: it learns, it repeats itself to the bit, and a killed run ends like one that was not."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from foundation.artifacts import Checkpoint
from foundation.errors import StageError, UsageError
from foundation.files import sha256_of_file
from foundation.run_folder import RunFolder
from stages.network import PactSettings
from stages.network.checkpoint import load_checkpoint
from stages.network.quantizers import clip_bounds
from stages.train.recipe import learning_rate
from stages.train.settings import AugmentSettings, DistillationSettings, SaliencyGuidedSettings, TrainSettings
from stages.train.trainer import train

COMBINATIONS = [
    pytest.param(None, None, id="plain"),
    pytest.param(None, SaliencyGuidedSettings(), id="saliency-guided"),
    pytest.param(PactSettings(), None, id="pact"),
    pytest.param(PactSettings(), SaliencyGuidedSettings(), id="pact+saliency-guided"),
]


def settings(**changes):
    values = {
        "network": "cnn-small",
        "epochs": 3,
        "batch_size": 24,
        "augment": AugmentSettings(flip="none"),
        "threads": 1,
        **changes,
    }
    return TrainSettings(**values)


@pytest.mark.parametrize(("pact", "guided"), COMBINATIONS)
def test_every_combination_learns_the_stripes(stripes, tmp_path, pact, guided):
    run = RunFolder(tmp_path)
    train(stripes, settings(pact=pact, saliency_guided=guided), run, "key")
    history = json.loads(run.history.read_text())
    assert [epoch["epoch"] for epoch in history] == [1, 2, 3]
    assert max(epoch["validation_balanced_accuracy"] for epoch in history) >= 0.9


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(stripes, tmp_path):
    sums = [
        train(stripes, settings(epochs=1, seed=seed), RunFolder(tmp_path / str(number)), "key").sha256
        for number, seed in enumerate((0, 0, 1))
    ]
    assert sums[0] == sums[1] != sums[2]


def test_a_training_killed_after_an_epoch_ends_with_the_same_bytes(stripes, tmp_path):
    whole, killed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    expected = train(stripes, settings(augment=AugmentSettings()), whole, "key")

    class Killed(Exception):
        pass

    def kill(epoch):
        if epoch.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        train(stripes, settings(augment=AugmentSettings()), killed, "key", on_epoch=kill)
    assert not killed.checkpoint.exists()
    epochs = []
    resumed = train(
        stripes, settings(augment=AugmentSettings()), killed, "key", on_epoch=lambda e: epochs.append(e.epoch)
    )
    assert epochs == [3]
    assert resumed.sha256 == expected.sha256
    assert sha256_of_file(killed.history) == sha256_of_file(whole.history)
    assert sorted(path.name for path in killed.checkpoint.parent.iterdir()) == [
        "checkpoint.safetensors",
        "history.json",
    ]


def test_a_state_of_another_training_is_ignored(stripes, tmp_path):
    run = RunFolder(tmp_path)

    def kill(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(stripes, settings(), run, "one", on_epoch=kill)
    epochs = []
    train(stripes, settings(epochs=2), run, "another", on_epoch=lambda epoch: epochs.append(epoch.epoch))
    assert epochs == [1, 2]


def test_the_best_epoch_by_validation_data_is_kept(stripes, tmp_path, monkeypatch):
    scores = iter([(1.0, 0.5), (0.9, 0.8), (0.8, 0.6)])
    seen = []

    def evaluate(network, split, spec):
        assert split is stripes.validation
        seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return next(scores)

    monkeypatch.setattr("stages.train.trainer.evaluate", evaluate)
    _, network = load_checkpoint(train(stripes, settings(), RunFolder(tmp_path), "key"))
    assert all(torch.equal(tensor, seen[1][name]) for name, tensor in network.state_dict().items())


def test_l2_shrinks_alpha_as_the_weights_are_shrunk(stripes, tmp_path):
    def alpha(l2):
        pact = PactSettings(alpha_init=50.0, alpha_l2=l2)  # nothing is clipped, so only L2 moves it
        run = RunFolder(tmp_path / str(l2))
        _, network = load_checkpoint(
            train(stripes, settings(epochs=1, pact=pact, saliency_guided=None, learning_rate=0.01), run, "key")
        )
        return clip_bounds(network)[0].item()

    assert alpha(0.0) == 50.0
    rate_sum, velocity, value = 0.0, 0.0, 50.0
    for step in range(5):  # SGD with Nesterov momentum on the gradient λα, by hand
        rate = learning_rate(settings(epochs=1, learning_rate=0.01), step, 5)
        gradient = 0.1 * value
        velocity = 0.9 * velocity + gradient
        value -= rate * (gradient + 0.9 * velocity)
        rate_sum += rate
    assert alpha(0.1) == pytest.approx(value, rel=1e-5)
    assert value < 50.0


def test_an_infinite_loss_stops_and_keeps_the_last_complete_epoch(stripes, tmp_path, monkeypatch):
    calls = itertools.count()

    def loss(logits, labels, *_):
        value = torch.nn.functional.nll_loss(torch.log_softmax(logits, 1), labels)
        return value * math.nan if next(calls) == 7 else value  # 5 steps an epoch: the third step of the second

    monkeypatch.setattr("stages.train.step.label_loss", loss)
    run = RunFolder(tmp_path)
    with pytest.raises(StageError, match=r"nan in epoch 2, step 3.*last_good\.safetensors"):
        train(stripes, settings(saliency_guided=None), run, "key")
    assert run.checkpoint.with_name("state.pt").exists()
    assert not run.checkpoint.exists()
    monkeypatch.undo()
    _, kept = load_checkpoint(Checkpoint.at(run.checkpoint.with_name("last_good.safetensors")))
    assert all(torch.isfinite(tensor).all() for tensor in kept.state_dict().values())


def test_an_infinite_loss_in_the_first_epoch_says_that_nothing_is_kept(stripes, tmp_path, monkeypatch):
    monkeypatch.setattr("stages.train.step.label_loss", lambda logits, *_: logits.sum() * math.inf)
    run = RunFolder(tmp_path)
    with pytest.raises(StageError, match=r"in epoch 1, step 1\. No epoch is complete, so nothing is kept\. Lower"):
        train(stripes, settings(saliency_guided=None), run, "key")
    assert not run.checkpoint.with_name("state.pt").exists()


def test_rate_rises_to_its_peak_and_falls_to_zero():
    rates = [learning_rate(settings(warmup_fraction=0.1, learning_rate=0.05), step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.05 / 11)
    assert max(rates) == rates[10] == pytest.approx(0.05)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))
    assert rates[-1] == pytest.approx(0.025 * (1 + math.cos(math.pi * 89 / 90)))


def test_a_damaged_state_is_named(stripes, tmp_path):
    run = RunFolder(tmp_path)
    state = run.checkpoint.with_name("state.pt")
    state.parent.mkdir(parents=True)
    for content in (b"", b"garbage", b"\x80\x02K\x01."):
        state.write_bytes(content)
        with pytest.raises(StageError, match=r"state\.pt.*Delete it"):
            train(stripes, settings(epochs=1), run, "key")


def test_an_edited_state_is_refused(stripes, tmp_path):
    def interrupt(epoch):
        raise KeyboardInterrupt

    run = RunFolder(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train(stripes, settings(epochs=2), run, "key", on_epoch=interrupt)
    state = run.checkpoint.with_name("state.pt")
    content = state.read_bytes()
    for place in (0, 30, 64, len(content) // 2, len(content) - 1):
        state.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises(StageError, match=r"state\.pt: .* found a damaged file.*Delete it"):
            train(stripes, settings(epochs=2), run, "key")
    state.write_bytes(content)
    train(stripes, settings(epochs=2), run, "key")


def test_the_number_of_threads_is_part_of_the_settings_and_of_the_process(stripes, tmp_path):
    train(stripes, settings(epochs=1, threads=1), RunFolder(tmp_path), "key")
    assert torch.get_num_threads() == 1
    assert settings(threads=2).model_dump() != settings(threads=1).model_dump()


def test_progress_counts_every_step(stripes, tmp_path):
    calls = []
    train(stripes, settings(epochs=2), RunFolder(tmp_path), "key", lambda done, total: calls.append((done, total)))
    assert calls == [(step, 10) for step in range(1, 11)]


def test_the_step_schedule_falls_tenfold_after_30_and_60_percent():
    recipe = settings(schedule="step", warmup_fraction=0.0, learning_rate=0.1)
    rates = [learning_rate(recipe, step, 200) for step in (0, 59, 60, 119, 120, 199)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adamw", "learning_rate": 0.002},
        {"mixed_precision": True},
        {"channels_last": True},
        {"imbalance": "weighted_loss"},
        {"imbalance": "weighted_sampling"},
        {"label_smoothing": 0.1},
        {"ema_decay": 0.9},
        {"norm_batches": 3},
        {"norm_batches": 100, "ema_decay": 0.9},
        {"augment": AugmentSettings(flip="none", crop=1, colour=0.1)},
    ],
    ids=str,
)
def test_every_part_of_the_recipe_learns_the_stripes_and_resumes_to_the_same_bytes(stripes, tmp_path, changes):
    whole, killed = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "killed")
    recipe = settings(**{"saliency_guided": None, **changes})
    expected = train(stripes, recipe, whole, "key")
    assert max(epoch["validation_balanced_accuracy"] for epoch in json.loads(whole.history.read_text())) >= 0.9

    def kill(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(stripes, recipe, killed, "key", on_epoch=kill)
    assert train(stripes, recipe, killed, "key").sha256 == expected.sha256


def test_dropout_draws_the_same_in_every_training_and_after_a_kill(stripes, tmp_path, monkeypatch):
    (tmp_path / "dropping.py").write_text(
        "from torch import nn\n"
        "def build(channels, classes):\n"
        "    return nn.Sequential(nn.Conv2d(channels, 8, 3), nn.ReLU(), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(2),\n"
        "                         nn.Flatten(), nn.Linear(32, classes))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    recipe = settings(network="dropping:build", saliency_guided=None, epochs=2)
    torch.manual_seed(1)
    expected = train(stripes, recipe, RunFolder(tmp_path / "whole"), "key")
    torch.manual_seed(2)
    drawn = torch.get_rng_state()

    def kill(_):
        raise KeyboardInterrupt

    killed = RunFolder(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        train(stripes, recipe, killed, "key", on_epoch=kill)
    assert train(stripes, recipe, killed, "key").sha256 == expected.sha256
    assert torch.equal(torch.get_rng_state(), drawn)  # nobody else's draws are touched


def test_training_stops_after_as_many_epochs_without_a_better_one_as_patience_allows(stripes, tmp_path, monkeypatch):
    # The second is the best; the third scores less, the fourth as much with the same loss.
    scores = iter([(1.0, 0.5), (0.9, 0.8), (0.8, 0.6), (0.9, 0.8), (0.1, 0.9)])
    monkeypatch.setattr("stages.train.trainer.evaluate", lambda *_: next(scores))
    run = RunFolder(tmp_path)
    train(stripes, settings(epochs=9, patience=2), run, "key")
    assert len(json.loads(run.history.read_text())) == 4


def test_a_teacher_of_other_classes_is_refused(stripes, tmp_path):
    teacher = train(stripes, settings(epochs=1, pact=None), RunFolder(tmp_path / "teacher"), "key")
    others = replace(stripes, classes=("a", "b", "c"))
    recipe = settings(distillation=DistillationSettings(teacher=teacher.path))
    with pytest.raises(UsageError, match=r"expected classes \('a', 'b', 'c'\), found \('horizontal'"):
        train(others, recipe, RunFolder(tmp_path / "student"), "key")


def test_a_student_that_learns_from_the_teacher_alone_comes_to_answer_like_it(stripes, tmp_path):
    teacher = train(stripes, settings(pact=None, saliency_guided=None), RunFolder(tmp_path / "teacher"), "key")
    misled = replace(stripes, train=replace(stripes.train, labels=(stripes.train.labels + 1) % 3))
    distillation = DistillationSettings(teacher=teacher.path, weight=1.0, temperature=2.0)
    recipe = settings(distillation=distillation, saliency_guided=None, epochs=5)
    run = RunFolder(tmp_path / "student")
    train(misled, recipe, run, "key")
    # The labels of its training images are all wrong; only the teacher can have told it.
    assert json.loads(run.history.read_text())[-1]["validation_balanced_accuracy"] >= 0.9


def test_a_multi_label_task_learns_each_label(stripes, tmp_path):
    # Two labels that are not exclusive: "varies by row" (horizontal, diagonal), "varies by column".
    answers = np.array([[1, 0], [0, 1], [1, 1]])
    splits = {
        name: replace(stripes.split(name), labels=answers[stripes.split(name).labels])
        for name in ("train", "validation", "test")
    }
    data = replace(stripes, classes=("rows", "columns"), task="multi_label", **splits)
    run = RunFolder(tmp_path)
    train(data, settings(epochs=4), run, "key")
    assert json.loads(run.history.read_text())[-1]["validation_auroc_macro"] >= 0.95


def test_zero_epochs_ship_the_weights_as_they_were_given(stripes, tmp_path):
    run = RunFolder(tmp_path)
    trained = train(stripes, settings(epochs=1, pact=None), run, "key")
    again = RunFolder(tmp_path / "again")
    same = train(stripes, settings(epochs=0, pact=None, pretrained=trained.path), again, "key")
    assert same.sha256 == trained.sha256
    assert json.loads(again.history.read_text()) == []


def test_statistics_of_batch_norms_are_refused_for_a_network_without_any(stripes, tmp_path):
    larger = np.pad(stripes.train.images, ((0, 0), (0, 0), (6, 6), (6, 6)))
    data = replace(stripes, train=replace(stripes.train, images=larger))
    with pytest.raises(
        UsageError, match=r"train\.norm_batches: expected a network with batch norms, 'lenet5' has none"
    ):
        train(data, settings(network="lenet5", norm_batches=2), RunFolder(tmp_path), "key")


def test_a_gpu_that_is_not_there_is_named(stripes, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match=r"train\.device: expected a GPU"):
        train(stripes, settings(device="cuda"), RunFolder(tmp_path), "key")
