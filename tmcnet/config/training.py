"""Config of the networks and of both trainings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tmcnet.config.base import Section

Variant = Literal["reference", "corrected"]
Network = Literal[
    "mssnet", "early_fusion", "late_fusion", "optical_only", "sar_only", "pixel_logistic", "pixel_boosting"
]
SINGLE_SENSOR = ("optical_only", "sar_only")
"""Networks that look at one sensor only."""
PIXELWISE = ("pixel_logistic", "pixel_boosting")
"""Classifiers of single pixels, the baselines of scikit-learn; they have no encoder and one start only."""
LoadParts = Literal["backbone", "encoder", "all"]
Loss = Literal["cross_entropy", "focal", "dice", "cross_entropy_dice"]
Dilation = Annotated[int, Field(ge=1)]
Window = Annotated[int, Field(ge=3)]
RANDOM_START = "random"
"""Name of the start that loads nothing; reserved."""


class ModelConfig(Section):
    """Size of the networks, shared by pre-training and fine-tuning."""

    backbone: Literal["resnet18", "resnet34", "resnet50"] = Field(
        "resnet18", description="Encoder of each sensor; the published one is `resnet50`."
    )
    width: int = Field(64, ge=8, description="Channels of the first stage; 64 in the published networks.")
    output_stride: Literal[8, 16] = Field(16, description="Input pixels per pixel of the deepest feature map.")
    dilations: tuple[Dilation, Dilation, Dilation] = Field(
        (6, 12, 18),
        description="Dilations of the pyramid at output stride 16; doubled at 8. The outer taps of a dilation larger "
        "than `crop_size` / `output_stride` fall on padding and are never trained, yet act on larger images: "
        "small crops want small dilations.",
    )
    aspp_channels: int = Field(256, ge=16, description="Channels of atrous spatial pyramid pooling.")
    decoder_channels: int = Field(256, ge=16, description="Channels of the decoder.")
    image_pooling: bool = Field(
        False,
        description="Mean over the whole image as a further scale of the pyramid. With it a pixel depends on the "
        "window it is seen in, and on every cloud there, which shows as seams. The `reference` variants have it.",
    )
    detail_channels: int = Field(
        32,
        ge=0,
        description="Channels of the full-resolution branch of all segmentation networks but the `reference` one; "
        "0 leaves it out, which loses what is narrower than four pixels.",
    )
    dropout: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="Share of the encoder's output dropped in training; short schedules want less. The `reference` "
        "variants always drop the published 0.5.",
    )
    texture_windows: tuple[Window, ...] = Field(
        (3, 7, 15),
        description="Sides of the windows, in pixels, over which the full-resolution branch and the pixel-wise "
        "baselines take the mean and the standard deviation of each band, beside the band itself.",
    )
    embedding: int = Field(64, ge=8, description="Length of the embeddings compared by the contrastive loss.")


class MethodConfig(Section):
    """One pre-training method: TMCNet in one of its variants, or an ablation of it."""

    variant: Variant = Field(
        "corrected",
        description="`reference`: the published loss and views as coded. `corrected`: with their defects mended.",
    )
    style: bool = Field(True, description="Global embedding from means and variances; false: from means only.")
    lambda_global: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Weight of the global loss; 1 minus it weighs the local loss. 0 or 1 drops a term.",
    )
    temperature: float = Field(0.5, gt=0, description="Temperature of the contrastive loss.")
    perturbation: bool = Field(
        True, description="Tuples with the wrong partner image as negatives; false: plain fused NT-Xent."
    )
    perturbation_weight: float | None = Field(
        None,
        gt=0,
        description="Weight of the SAR embedding in perturbed tuples; null: 0.1 in `reference`, 1 in `corrected`.",
    )
    batch_norm_momentum: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Momentum of batch norm; null: 0.9 in `reference`, 0.1 in `corrected`.",
    )


class PretrainConfig(Section):
    """Self-supervised pre-training of both encoders on unlabelled pairs of the training part."""

    methods: dict[str, MethodConfig] = Field(
        {"tmcnet": MethodConfig()},
        description="Pre-training methods by name; the names appear in tables and figures.",
    )
    weights: dict[str, str] = Field(
        {},
        description="Weights from earlier runs by name: safetensors files that fine-tuning can start from.",
    )
    steps: int = Field(300, ge=1, description="Optimiser steps.")
    batch_size: int = Field(16, ge=2, description="Tile pairs in a step.")
    crop_size: int = Field(96, ge=32, description="Side of a view in pixels after the random resized crop.")
    crop_area: tuple[float, float] = Field((0.4, 1.0), description="Range of the share of a tile that a crop covers.")
    photometric: float = Field(
        1.0,
        ge=0,
        le=2,
        description="Strength of the changes of brightness and texture in `corrected` views; 0: none.",
    )
    patch_size: int = Field(24, ge=4, description="Side of a local patch in pixels of the view.")
    patches: int = Field(4, ge=1, description="Corresponding patches drawn in each pair of views.")
    learning_rate: float = Field(1e-3, gt=0, description="Highest learning rate.")
    weight_decay: float = Field(1e-5, ge=0, description="Weight decay.")
    warmup_steps: int = Field(20, ge=0, description="Steps over which the learning rate rises.")
    log_every: int = Field(10, ge=1, description="Steps between two points of the curves.")
    checkpoint_every: int = Field(100, ge=1, description="Steps between two states that a killed run resumes from.")
    seed: int = Field(1, ge=0, description="Seed of initial weights and views.")

    @model_validator(mode="after")
    def _names_and_sizes_fit(self) -> PretrainConfig:
        if self.patch_size > self.crop_size:
            raise ValueError(f"`patch_size` ({self.patch_size}) must not exceed `crop_size` ({self.crop_size})")
        both = set(self.methods) & set(self.weights)
        if both or RANDOM_START in {*self.methods, *self.weights}:
            raise ValueError(
                f"names in `methods` and `weights` must differ from each other and from `{RANDOM_START}`"
            )
        bad = [
            n
            for n in {*self.methods, *self.weights}
            if not n.replace("-", "").replace("_", "").isalnum() or "__" in n
        ]
        if bad:
            raise ValueError(f"method names hold letters, digits, single `_` and `-` only, not {bad}")
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise ValueError(f"`crop_area` must be two ascending shares between 0 and 1, not {list(self.crop_area)}")
        return self


class SweepConfig(Section):
    """A part of the sweep: every combination of what it lists becomes a run."""

    methods: list[str] = Field(
        [RANDOM_START],
        min_length=1,
        description="Starts: `random`, names of `pretrain.methods` or `pretrain.weights`.",
    )
    networks: list[Network] = Field(["mssnet"], min_length=1, description="Segmentation networks.")
    variants: list[Variant] = Field(
        ["corrected"], min_length=1, description="Variants of `mssnet`; the other networks have only one."
    )
    fractions: list[float] = Field(
        ..., min_length=1, description="Label fractions in percent, from `splits.fractions`."
    )
    seeds: list[int] = Field(
        [1, 2],
        min_length=1,
        description="Run seeds; run seed k also takes the k-th draw of the label fraction.",
    )


class PixelwiseConfig(Section):
    """How the pixel-wise baselines are fitted (`pixel_logistic`, `pixel_boosting`)."""

    pixels: int = Field(
        50_000, ge=100, description="Labelled pixels that are learnt from at most, drawn evenly over the classes."
    )
    iterations: int = Field(100, ge=1, description="Boosting rounds at most; one tree a class and round.")
    leaves: int = Field(15, ge=2, le=255, description="Leaves of a tree at most.")
    learning_rate: float = Field(0.1, gt=0, description="Shrinkage of each boosting round.")
    regularisation: float = Field(1.0, gt=0, description="Weight of the L2 penalty of both baselines.")


class FinetuneSettings(Section):
    """How one network is fine-tuned on one label fraction."""

    load: LoadParts = Field(
        "all",
        description="What is taken over from pre-training: `backbone`, `encoder` (backbone and ASPP) or `all` "
        "(and the decoder, where it fits).",
    )
    steps: int = Field(200, ge=1, description="Optimiser steps.")
    batch_size: int = Field(8, ge=2, description="Tiles in a step.")
    crop_size: int = Field(96, ge=32, description="Side of the training crop in pixels.")
    learning_rate: float = Field(1e-3, gt=0, description="Highest learning rate.")
    encoder_rate: float = Field(
        1.0, gt=0, description="Learning rate of the encoders as a multiple of `learning_rate`."
    )
    weight_decay: float = Field(1e-2, ge=0, description="Weight decay.")
    warmup_steps: int = Field(20, ge=0, description="Steps over which the learning rate rises.")
    loss: Loss = Field(
        "cross_entropy",
        description="`cross_entropy`; `focal`, which weighs pixels that are already right less (Lin et al. 2017); "
        "`dice`, the overlap of each class (Milletari et al. 2016); `cross_entropy_dice`, the sum of the two.",
    )
    focal_gamma: float = Field(2.0, ge=0, description="Exponent of the `focal` loss; 0 is cross-entropy.")
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay per step of a running mean of the weights, which then is what is validated and kept; "
        "null: the weights themselves.",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Looks at the validation part without a better mIoU after which training stops; null: never.",
    )
    class_weights: bool = Field(
        True, description="Weigh classes by the inverse square root of their frequency in the label fraction."
    )
    photometric: float = Field(
        0.25, ge=0, le=2, description="Strength of the changes of brightness and texture; 1 as in pre-training."
    )
    modality_dropout: float = Field(
        0.0, ge=0, lt=1, description="Chance that a training sample is shown with one sensor missing."
    )
    validate_every: int = Field(50, ge=1, description="Steps between two looks at the validation part.")
    pixelwise: PixelwiseConfig = Field(PixelwiseConfig(), description="The pixel-wise baselines.")
    seed: int = Field(1, ge=0, description="Added to every run seed.")


class FinetuneConfig(FinetuneSettings):
    """Supervised fine-tuning of fusion networks on label fractions."""

    sweep: list[SweepConfig] = Field(..., min_length=1, description="What is run; runs listed twice are run once.")
