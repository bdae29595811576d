"""How finely each saliency method looks."""

from __future__ import annotations

from pydantic import Field

from foundation.settings import Settings


class MapSettings(Settings):
    """Samples, steps and patches of the saliency methods; a method reads only its own."""

    # Shares of the image's side, so that the number of queries per image doesn't depend on its resolution.
    patch_share: float = Field(0.2, gt=0.0, le=1.0, description="side of the occluding patch over the image's side")
    stride_share: float = Field(0.1, gt=0.0, le=1.0, description="step between patches over the image's side")
    smooth_samples: int = Field(25, ge=1, le=10_000, description="SmoothGrad: noisy copies of an image")
    smooth_noise_share: float = Field(
        0.15, ge=0.0, le=1.0, description="SmoothGrad: standard deviation of the noise over the image's value range"
    )
    integration_steps: int = Field(
        32, ge=1, le=10_000, description="integrated gradients: points of the midpoint rule"
    )
    rise_masks: int = Field(1000, ge=1, le=100_000, description="RISE: random masks, a query each")
    rise_cells: int = Field(7, ge=1, le=256, description="RISE: cells of a mask along each side")
    rise_kept_share: float = Field(0.5, gt=0.0, lt=1.0, description="RISE: chance of a cell to be kept")
    batch_size: int = Field(16, ge=1, le=4096, description="images per query")
    threads: int = Field(1, ge=1, le=256, description="threads of the session")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="seed of SmoothGrad's noise and of RISE's masks")

    def patch(self, image_size: int) -> int:
        """Return the occluding patch's side in pixels."""
        return max(1, round(self.patch_share * image_size))

    def stride(self, image_size: int) -> int:
        """Return the step between patches in pixels; never more than a patch, or pixels would stay uncovered."""
        return min(self.patch(image_size), max(1, round(self.stride_share * image_size)))
