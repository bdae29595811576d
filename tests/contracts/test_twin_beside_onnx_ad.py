"""Every rule of the twin against the same operator's rule in `onnx-ad`, a second set of derivatives of ONNX graphs.

The cases are those of `test_twin_rules.py`. Where one of two independent implementations is wrong, they differ.
"""

from __future__ import annotations

import warnings
from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto
from test_twin_rules import CASES, CLASSES, Case, built, session

from stages.saliency_twin.twin import build_twin

onnx_ad = pytest.importorskip("onnx_ad", reason="the package onnx-ad is not installed")

LEAST_SHARED = 150
"""Cases for which it has a rule as well; fewer would mean that it is asked wrongly."""
LEAST_KNOWN = 0.7
"""Share of a gradient that is a number in its answer; less would mean that nothing was compared."""
ROUNDING = ("Quantize", "QLinear", "QGemm", "Integer")
"""What rounds has a slope of 0 there; the twin's is that of the number that is rounded."""
UNEVEN_PADS = ("pads = [0, 1, 2, 1]", "pads = [2, 0, 2, 1]", "pads = [1, 0, 0, 1]")
"""Of convolutions for which onnx-ad 0.3.0 is far from differences in float64, with which the twin agrees."""


def theirs(model: ModelProto) -> ModelProto | None:
    """Return the model with its adjoint, or None where onnx-ad has no rule for it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return onnx_ad.reverse(model, inputs=["x"], layout="onnx")
    except Exception:  # of many kinds, and each means that it does not take the graph
        return None


def gradients(case: Case) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return the twin's gradient and onnx-ad's; None where that has no rule, or the runtime refuses what it made."""
    rng = np.random.default_rng(0)
    x = rng.uniform(case.lowest, 2, case.shape).astype(np.float32)
    targets = rng.integers(0, CLASSES, case.shape[0])
    y = session(built(case, np.float32, None)).run(None, {"x": x})[0]
    projection = rng.normal(0, 1, (y[0].size, CLASSES)).astype(np.float32)
    model = built(case, np.float32, projection)
    adjoint = theirs(model)
    if adjoint is None:
        return None
    seeds = np.eye(CLASSES, dtype=np.float32)[targets][..., None]
    try:
        (expected,) = session(adjoint).run(["adj_x"], {"x": x, "adj_logits": seeds})
    except Exception:  # of ONNX Runtime, on a graph that is not ours
        return None
    found = session(build_twin(model)).run(["saliency"], {"x": x, "target": targets})[0]
    return found, expected.reshape(found.shape)


def _is_uneven(case: Case) -> bool:
    return any(pads in case.body for pads in UNEVEN_PADS)


@pytest.mark.long
def test_both_give_the_same_gradient_where_both_have_a_rule() -> None:
    compared, apart = Counter[str](), []
    for number, case in enumerate(CASES):
        if any(name in case.body for name in ROUNDING) or (case.rule == "Conv" and _is_uneven(case)):
            continue
        pair = gradients(case)
        if pair is None:
            continue
        compared[case.rule] += 1
        found, expected = pair
        known = np.isfinite(expected)  # of a norm of 0 its rule makes no number
        assert known.mean() >= LEAST_KNOWN
        found, expected = found[known], expected[known]
        if not np.allclose(found, expected, rtol=1e-4, atol=2e-5 * max(1e-30, float(np.abs(expected).max()))):
            apart.append(f"{number}-{case.rule}: {np.abs(found - expected).max() / np.abs(found).max():.1e}")
    assert apart == []
    assert compared.total() >= LEAST_SHARED
