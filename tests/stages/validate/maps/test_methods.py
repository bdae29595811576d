"""What every row of SALIENCY_METHODS promises, on files that take pixels and files that take floats."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from scipy.stats import spearmanr

from foundation.errors import NotMeasuredError, UsageError
from stages.validate.maps.methods import SALIENCY_METHODS, ExplainedFiles, open_method
from stages.validate.maps.settings import MapSettings

SETTINGS = MapSettings(smooth_samples=5, integration_steps=6, rise_masks=40, batch_size=4)
IMAGES = np.random.default_rng(1).integers(0, 256, (3, 3, 12, 12), dtype=np.uint8)
TARGETS = np.array([2, 0, 1])

every_method = pytest.mark.parametrize("name", SALIENCY_METHODS)
both_inputs = pytest.mark.parametrize("input_type", ["uint8", "float32"])


@pytest.fixture
def opened(classifier):
    def open_(name, input_type="uint8", settings=SETTINGS):
        return open_method(name, classifier(input_type, size=12)[0], "multi_class", settings)

    return open_


@every_method
@both_inputs
def test_maps_are_finite_the_same_twice_and_follow_the_class(name, input_type, opened):
    explain = opened(name, input_type)
    before = IMAGES.copy()
    maps = explain(IMAGES, TARGETS)
    assert (maps.shape, maps.dtype) == ((3, 12, 12), np.float32)
    assert np.isfinite(maps).all()
    assert (explain(IMAGES, TARGETS) == maps).all()
    assert (maps != explain(IMAGES, (TARGETS + 1) % 3)).any()
    assert (before == IMAGES).all()
    assert (maps.min() < 0) == SALIENCY_METHODS[name].signed


@every_method
def test_a_map_does_not_depend_on_its_neighbours_or_the_batch(name, opened):
    together = opened(name)(IMAGES, TARGETS)
    alone = np.concatenate([opened(name)(IMAGES[i : i + 1], TARGETS[i : i + 1]) for i in (2, 1, 0)])[::-1]
    assert alone == pytest.approx(together, rel=1e-5, abs=1e-6)
    other_batch = opened(name, settings=SETTINGS.model_copy(update={"batch_size": 3}))(IMAGES, TARGETS)
    assert other_batch == pytest.approx(together, rel=1e-5, abs=1e-6)
    assert opened(name)(IMAGES[:0], TARGETS[:0]).shape == (0, 12, 12)


@every_method
@both_inputs
@pytest.mark.parametrize("gray", [0, 128, 255])
def test_a_blank_image_has_a_map(name, input_type, gray, opened):
    assert np.isfinite(opened(name, input_type)(np.full_like(IMAGES[:1], gray), TARGETS[:1])).all()


@every_method
def test_a_file_for_pixels_and_one_for_floats_agree(name, opened):
    """The same network; a uint8 file rounds what lies between gray values, and its gradient is per gray value."""
    images = 90 + IMAGES // 4  # far from black and white, where noise on pixels is clipped
    pixels, floats = (opened(name, kind)(images, TARGETS) for kind in ("uint8", "float32"))
    assert all(spearmanr(a.ravel(), b.ravel()).statistic > 0.97 for a, b in zip(pixels, floats, strict=True))


@every_method
def test_its_random_maps_are_no_finer_than_its_own(name, opened):
    explain = opened(name)
    maps = explain.random_maps((60, 12, 12), 0)
    assert (maps.shape, maps.dtype) == ((60, 12, 12), np.float32)
    neighbours = float(np.corrcoef(maps[:, :, 1:].ravel(), maps[:, :, :-1].ravel())[0, 1])
    coarse = name in ("occlusion", "rise")  # the small network's feature maps are as fine as its images
    assert neighbours > 0.3 if coarse else abs(neighbours) < 0.05
    assert (explain.random_maps((60, 12, 12), 1) != maps).any()


@every_method
@pytest.mark.parametrize("batch", [1, 2])
def test_a_file_of_fixed_batch_has_the_same_maps(name, batch, classifier, twins, tmp_path):
    files, _ = classifier(size=12)
    model = onnx.load(files.model)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    path = tmp_path / "fixed.onnx"
    onnx.save(model, path)
    maps, expected = (open_method(name, of, "multi_class", SETTINGS)(IMAGES, TARGETS) for of in (twins(path), files))
    assert maps == pytest.approx(expected, rel=1e-4, abs=1e-6)


@every_method
def test_questions_that_do_not_fit_are_refused(name, opened):
    explain = opened(name)
    for images in (IMAGES[:, :1], IMAGES[:, :, :8, :8], IMAGES[0], IMAGES.astype(np.float32)):
        with pytest.raises(UsageError, match=r"expected images uint8 of shape \[n, 3, 12, 12\], found"):
            explain(images, TARGETS)
    for targets in (np.array([0, 1, 3]), np.array([0, -1, 1]), TARGETS[:2], TARGETS.astype(np.int32)):
        with pytest.raises(UsageError, match="expected a class of 0 to 3"):
            explain(IMAGES, targets)


@every_method
def test_the_file_that_a_method_asks_must_be_there(name, classifier):
    files, _ = classifier()
    alone = ExplainedFiles(files.model)
    if SALIENCY_METHODS[name].runs_on == "model":
        open_method(name, alone, "multi_class", SETTINGS)
    else:
        with pytest.raises(NotMeasuredError, match=rf"{name}: expected the .* twin of uint8\.onnx, found none"):
            open_method(name, alone, "multi_class", SETTINGS)


@every_method
def test_a_file_without_preprocessing_or_with_two_inputs_is_refused(name, classifier, tmp_path):
    files, _ = classifier()
    path = {"model": files.model, "twin": files.twin, "grad_cam": files.grad_cam}[SALIENCY_METHODS[name].runs_on]
    model = onnx.load(path)
    model.graph.input.append(onnx.helper.make_tensor_value_info("age", 1, [1]))
    onnx.save(model, tmp_path / "two.onnx")
    two = tmp_path / "two.onnx"
    with pytest.raises(UsageError, match="expected a model with one input, the image, found image, age"):
        open_method(name, ExplainedFiles(two, two, two), "multi_class", SETTINGS)
    model = onnx.load(path)
    model.ClearField("metadata_props")
    onnx.save(model, tmp_path / "bare.onnx")
    bare = tmp_path / "bare.onnx"
    with pytest.raises(UsageError, match=r"expected the metadata entry edgeproof\.preprocessing"):
        open_method(name, ExplainedFiles(bare, bare, bare), "multi_class", SETTINGS)


def test_an_unknown_method_is_named_with_the_known_ones(classifier):
    with pytest.raises(UsageError, match="'shap': expected one of gradient, gradient_x_input, smooth_grad"):
        open_method("shap", classifier()[0], "multi_class", SETTINGS)


@every_method
def test_a_row_says_what_it_is_and_where_it_comes_from(name):
    row = SALIENCY_METHODS[name]
    assert row.meaning
    assert "arXiv" in row.source
