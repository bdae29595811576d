"""Maps from a file's saliency twin: the gradient of a logit, and what is made of several of them.

Two kinds. Gradient and SmoothGrad say how much a pixel matters, whichever way: magnitudes, averaged over channels.
Gradient × input and integrated gradients say how much a pixel gave to the logit: signed, summed over channels.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from stages.validate.maps.bilinear import bilinear
from stages.validate.maps.queries import Twin

Images = NDArray[np.uint8]
Maps = NDArray[np.float32]
Indices = NDArray[np.int64]
Floats = NDArray[np.float32]


def gradient_maps(twin: Twin, images: Images, targets: Indices) -> Maps:
    """Return the magnitude of the target logit's gradient with respect to the image, averaged over channels.

    Source: Simonyan et al., arXiv 1312.6034.

    Args:
        twin: of the file to explain, whose input may have either layout.
        images: uint8 [n, channels, height, width].
        targets: int64 [n], the class to explain.

    Returns:
        float32 [n, height, width], 0 or more; per gray value of a uint8 input, per unit of a float one.
    """
    channels = 1 if twin.preprocessing.layout == "NCHW" else -1
    maps: Maps = np.abs(twin.saliency(twin.inputs_of(images), targets)).mean(axis=channels)
    return maps


def gradient_x_input_maps(twin: Twin, images: Images, targets: Indices) -> Maps:
    """Return Σ_channels x · ∂logit/∂x with the image x as the first layer sees it, normalised.

    On a uint8 file that is (gray value − mean) · ∂logit/∂(gray value): the scale of the normalisation cancels.
    Source: Shrikumar et al., arXiv 1605.01713, signed as there.

    Args:
        twin: of the file to explain.
        images: uint8 [n, channels, height, width].
        targets: int64 [n], the class to explain.

    Returns:
        float32 [n, height, width], signed: above 0 where a pixel speaks for the class.
    """
    inputs = twin.inputs_of(images)
    maps: Maps = ((inputs - twin.zero) * twin.saliency(inputs, targets)).sum(axis=1)
    return maps


def smooth_grad_maps(
    twin: Twin, images: Images, targets: Indices, samples: int, noise_share: float, seed: int
) -> Maps:
    """Return the magnitude of the mean gradient over noisy copies of the image, averaged over channels.

    The noise is normal, in gray values, with σ = noise_share · (the image's largest − smallest value); every image
    and every file gets the same draws. A uint8 file sees the copies rounded and clipped, a float file as they are.
    Source: Smilkov et al., arXiv 1706.03825.

    Args:
        twin: of the file to explain.
        images: uint8 [n, channels, height, width].
        targets: int64 [n], the class to explain.
        samples: noisy copies, at least 1.
        noise_share: 0 to 1; the paper advises 0.1 to 0.2.
        seed: of the noise.

    Returns:
        float32 [n, height, width], 0 or more.
    """
    maps = np.empty((len(images), *images.shape[2:]), dtype=np.float32)
    for index, (image, inputs) in enumerate(zip(images, twin.inputs_of(images), strict=True)):
        sigma = np.float32(noise_share * np.ptp(image)) * twin.gray_value
        rng = np.random.default_rng(seed)
        copies = (
            inputs + sigma * rng.standard_normal((count, *inputs.shape), dtype=np.float32)
            for count in _counts(samples, twin.batch_size)
        )
        maps[index] = np.abs(_mean_gradient(twin, copies, targets[index])).mean(axis=0)
    return maps


def integrated_gradients_maps(twin: Twin, images: Images, targets: Indices, steps: int) -> Maps:
    """Return Σ_channels (x − x₀) · ∫₀¹ ∂logit/∂x (x₀ + t(x − x₀)) dt, with the mean colour as x₀.

    The integral by the midpoint rule; up to its error the map adds up to logit(x) − logit(x₀) ("completeness"). On a
    uint8 file the points of the path are rounded to whole gray values.
    Source: Sundararajan et al., arXiv 1703.01365, section 3.

    Args:
        twin: of the file to explain.
        images: uint8 [n, channels, height, width].
        targets: int64 [n], the class to explain.
        steps: points of the path, at least 1; the paper takes 20 to 300.

    Returns:
        float32 [n, height, width], signed: above 0 where a pixel speaks for the class.
    """
    maps = np.empty((len(images), *images.shape[2:]), dtype=np.float32)
    times = ((np.arange(steps, dtype=np.float32) + np.float32(0.5)) / np.float32(steps))[:, None, None, None]
    for index, inputs in enumerate(twin.inputs_of(images)):
        way = inputs - twin.zero
        path = (
            twin.zero + times[start : start + twin.batch_size] * way for start in range(0, steps, twin.batch_size)
        )
        maps[index] = (way * _mean_gradient(twin, path, targets[index])).sum(axis=0)
    return maps


def logit_gains(twin: Twin, images: Images, targets: Indices) -> NDArray[np.float64]:
    """Return logit(x) − logit(x₀), what the maps of integrated gradients should add up to, float64 [n].

    Args:
        twin: of the file to explain.
        images: uint8 [n, channels, height, width].
        targets: int64 [n], the class to explain.
    """
    inputs = twin.inputs_of(images)
    baseline = np.broadcast_to(twin.zero, inputs.shape)
    at_image, at_baseline = (twin.logits(np.ascontiguousarray(at), targets) for at in (inputs, baseline))
    return np.asarray(at_image.astype(np.float64) - at_baseline)


def grad_cam_maps(grad_cam: Twin, images: Images, targets: Indices) -> Maps:
    """Return Grad-CAM's coarse map, drawn bilinearly at the image's size.

    Source: Selvaraju et al., arXiv 1610.02391, equations 1 and 2, computed within the file.

    Args:
        grad_cam: of a file from `stages.saliency_twin.grad_cam`.
        images: uint8 [n, channels, height, width].
        targets: int64 [n], the class to explain.

    Returns:
        float32 [n, height, width], 0 or more.
    """
    coarse = grad_cam.saliency(grad_cam.inputs_of(images), targets)[:, 0]
    rows, columns = (bilinear(c, f) for c, f in zip(coarse.shape[1:], images.shape[2:], strict=True))
    maps: Maps = (rows @ coarse.astype(np.float64) @ columns.T).astype(np.float32)
    return maps


def _counts(total: int, batch_size: int) -> Iterator[int]:
    return (min(batch_size, total - start) for start in range(0, total, batch_size))


def _mean_gradient(twin: Twin, batches: Iterator[Floats], target: np.int64) -> NDArray[np.float64]:
    """Return the mean over all inputs of the batches; never more than one batch is held."""
    total, count = np.zeros(()), 0
    for inputs in batches:
        total = total + twin.saliency(inputs, np.full(len(inputs), target)).sum(axis=0, dtype=np.float64)
        count += len(inputs)
    return total / count
