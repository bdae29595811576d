"""A traced network means what the written one does: dropout follows the mode, ReLUs in place are seen later."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stages.network import PactSettings
from stages.network.pact import insert_pact
from stages.network.quantizers import set_rounding
from stages.network.relus import relu_modules
from stages.network.tracing import trace

GRAY = ((0.5,), (0.25,))


class Dropping(nn.Module):
    def __init__(self, drop):
        super().__init__()
        self.layer, self.head, self.drop = nn.Conv2d(1, 64, 1), nn.Linear(64, 2), drop

    def forward(self, x):
        x = F.relu(self.layer(x)).mean((2, 3))
        return self.head(self.drop(x, self.training))


@pytest.mark.parametrize("traced_in_training", [True, False])
def test_dropout_by_function_is_on_in_training_and_off_in_evaluation(traced_in_training):
    network = Dropping(lambda x, training: F.dropout(x, 0.5, training)).train(traced_in_training)
    traced, image = trace(network, "setting"), torch.ones(1, 1, 4, 4)
    assert torch.equal(traced.eval()(image), network.eval()(image))
    torch.manual_seed(0)
    answers = {tuple(traced.train()(image).flatten().tolist()) for _ in range(5)}
    torch.manual_seed(0)
    assert answers == {tuple(network.train()(image).flatten().tolist()) for _ in range(5)}
    assert len(answers) == 5


def test_dropout_that_is_never_on_stays_off():
    traced = trace(Dropping(lambda x, _: F.dropout(x, training=False)), "setting").train()
    assert len({tuple(traced(torch.ones(1, 1, 4, 4)).flatten().tolist()) for _ in range(5)}) == 1


class InPlace(nn.Module):
    """Reads what a ReLU changed in place, by the name that it had before."""

    def __init__(self, relu):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 3)
        self.relu = relu

    def forward(self, x):
        x = self.first(x)
        self.relu(x)
        return self.head((F.relu(self.second(x)) + x).mean((2, 3)))


@pytest.mark.parametrize(
    "relu",
    [
        pytest.param(nn.ReLU(inplace=True), id="module"),
        pytest.param(nn.ReLU6(inplace=True), id="relu6"),
        pytest.param(lambda x: F.relu(x, inplace=True), id="function"),
        pytest.param(lambda x: F.relu6(x, True), id="relu6 by position"),
        pytest.param(torch.relu_, id="torch.relu_"),
        pytest.param(lambda x: x.relu_(), id="method"),
    ],
)
def test_what_comes_after_a_relu_in_place_sees_what_it_did(relu):
    torch.manual_seed(1)
    network, images = InPlace(relu), torch.randn(2, 1, 6, 6)
    expected = network(images)
    watched, relus = relu_modules(network, "setting")
    assert torch.allclose(watched(images), expected, atol=1e-6)
    assert len(relus) == 2
    quantized = insert_pact(network, PactSettings(alpha_init=1e6), *GRAY)
    set_rounding(quantized, False)
    assert torch.allclose(quantized.train()(images), expected, atol=1e-5)
