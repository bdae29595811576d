"""The settings of training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from foundation.settings import LocalPath, Settings
from stages.network import NETWORKS, PactSettings, check_network_name


class SaliencyGuidedSettings(Settings):
    """Saliency-guided training (arXiv 2111.14338)."""

    masked_fraction: float = Field(0.5, gt=0, lt=1, description="share of each image's pixels replaced by noise")
    weight: float = Field(1.0, ge=0, description="λ, the weight of the Kullback-Leibler term")
    rank_by: Literal["magnitude", "signed"] = Field(
        "magnitude", description="rank pixels by |gradient| (the paper's text) or by its signed value (its code)"
    )


class AugmentSettings(Settings):
    """Random changes of the training images; every image draws its own."""

    flip: Literal["none", "horizontal", "both"] = Field("both", description="mirror each image half of the time")
    crop: int = Field(0, ge=0, le=512, description="shift by up to this many pixels, over black borders")
    rotation_degrees: float = Field(0.0, ge=0, le=180, description="turn by up to this angle, either way")
    colour: float = Field(
        0.0, ge=0, lt=1, description="change brightness, contrast and saturation by up to this share, for endoscopy"
    )


class DistillationSettings(Settings):
    """A trained network's answers as soft labels (arXiv 1503.02531), and its features as hints (arXiv 1412.6550)."""

    teacher: LocalPath = Field(description="checkpoint.safetensors of an earlier training on the same classes")
    weight: float = Field(0.5, gt=0, le=1, description="share of the teacher in the loss")
    temperature: float = Field(4.0, gt=0, description="T, by which both networks' logits are divided")
    feature_weight: float = Field(
        0.0,
        ge=0,
        description="weight in the loss of the relative squared error of what each block's last ReLU passes (each "
        "ReLU where there are no shortcuts), of a teacher of the same network: for few bits and few "
        "epochs, 200 at 2 bits; 0: the answers alone",
    )
    feature_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the steps, from the first, in which features count; the rest is fine-tuning",
    )


class TrainSettings(Settings):
    """The network and how it is trained."""

    network: str = Field(
        "cnn-medium",
        description="architecture by name, or your own `module:function` of (channels, classes)",
        json_schema_extra={"examples": list(NETWORKS)},
    )
    pretrained: LocalPath | None = Field(
        None, description="weights to start from: safetensors, or a PyTorch checkpoint of tensors alone"
    )
    pact: PactSettings | None = Field(PactSettings(), description="PACT's settings; null trains in plain float")
    saliency_guided: SaliencyGuidedSettings | None = Field(
        SaliencyGuidedSettings(), description="saliency-guided training's settings; null switches it off"
    )
    epochs: int = Field(20, ge=0, le=100_000, description="passes over the training images; 0: the weights as given")
    batch_size: int = Field(64, ge=2, le=100_000, description="images per step, over all processes together")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="SGD with Nesterov momentum 0.9, or AdamW")
    learning_rate: float = Field(0.05, gt=0, description="peak learning rate; 0.001 suits AdamW")
    weight_decay: float = Field(5e-4, ge=0, description="L2 coefficient of the weights")
    warmup_fraction: float = Field(0.1, ge=0, lt=1, description="share of the steps in which the rate rises linearly")
    schedule: Literal["cosine", "step"] = Field(
        "cosine", description="half a cosine to zero, or a tenth after 30 % and a hundredth after 60 % of the steps"
    )
    augment: AugmentSettings = Field(AugmentSettings(), description="random changes of the training images")
    imbalance: Literal["none", "weighted_loss", "weighted_sampling"] = Field(
        "none", description="rare classes: nothing, a greater weight in the loss, or drawn more often"
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of each label spread over the others")
    ema_decay: float | None = Field(
        None, gt=0, lt=1, description="validate and keep the running mean of the weights, with this decay per step"
    )
    norm_batches: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="take the batch norms' statistics anew over this many batches before each validation; null keeps "
        "the running ones",
    )
    distillation: DistillationSettings | None = Field(None, description="a teacher; null trains on the labels alone")
    patience: int | None = Field(
        None, ge=1, description="stop after this many epochs without a better one; null trains all epochs"
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU where there is one")
    mixed_precision: bool = Field(
        False, description="compute in bfloat16 where that is safe; validation stays float32"
    )
    channels_last: bool = Field(False, description="keep images in NHWC order, which many kernels prefer")
    deterministic: bool = Field(True, description="the same bytes each time; false allows faster kernels on a GPU")
    tensorboard: bool = Field(False, description="write train/tensorboard as well; needs the extra `tensorboard`")
    threads: int = Field(
        2,
        ge=1,
        le=1024,
        description="of the computation; another number gives other last bits, and so another network",
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="of initial weights, order, augmentation and noise")

    @field_validator("network")
    @classmethod
    def _network_is_known(cls, name: str) -> str:
        check_network_name(name)
        return name
