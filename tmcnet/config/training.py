"""Config of the networks and of fine-tuning."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from tmcnet.config.base import Section
from tmcnet.config.modalities import ONLY, only_modality

Variant = Literal["reference", "corrected"]
Network = Literal[
    "mssnet", "early_fusion", "late_fusion", "optical_only", "sar_only", "pixel_logistic", "pixel_boosting"
]
"""Networks that there are of any two sensors; of each other modality there is one that looks at it alone."""
SINGLE_SENSOR = (f"optical{ONLY}", f"sar{ONLY}")
"""Networks that look at one of the two sensors only."""
PIXELWISE = ("pixel_logistic", "pixel_boosting")
"""Classifiers of single pixels, the baselines of scikit-learn; they have no encoder and one start only."""


def _is_network(name: str) -> str:
    if only_modality(name) or name in get_args(Network):
        return name
    known = ", ".join(get_args(Network))
    raise ValueError(f"there is no network `{name}`; there are {known}, and `<name>{ONLY}` of each other modality")


NetworkName = Annotated[str, AfterValidator(_is_network)]
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
        description="Mean over the whole image as one more scale of the pyramid. With it a pixel depends on the "
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


class SweepConfig(Section):
    """A part of the sweep: every combination of what it lists becomes a run."""

    methods: list[str] = Field(
        [RANDOM_START],
        min_length=1,
        description="Starts: `random`, names of `pretrain.methods` or `pretrain.weights`.",
    )
    networks: list[NetworkName] = Field(
        ["mssnet"],
        min_length=1,
        description="Segmentation networks: `mssnet`, `early_fusion` and `late_fusion` of all modalities; "
        "`<name>_only` of one of `sensors`, such as `optical_only`; the baselines `pixel_logistic` and "
        "`pixel_boosting`.",
    )
    variants: list[Variant] = Field(
        ["corrected"], min_length=1, description="Variants of `mssnet`; the other networks have only one."
    )
    fractions: list[float] = Field([], description="Label fractions in percent, from `splits.fractions`.")
    points: list[int] = Field(
        [], description="Numbers of labelled pixels of each class, from `splits.points`: sparse annotation."
    )
    subsets: list[int] | None = Field(
        None,
        min_length=1,
        description="Draws of the labels, counted from 1, each of which is run with every seed; null: run seed k "
        "takes the k-th draw, which covers both with the fewest runs.",
    )
    seeds: list[int] = Field([1, 2], min_length=1, description="Run seeds: initial weights, samples, augmentation.")

    @model_validator(mode="after")
    def _has_labels(self) -> SweepConfig:
        if not self.fractions and not self.points:
            raise ValueError("name label `fractions`, `points`, or both")
        return self


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
        1.0,
        ge=0,
        description="Learning rate of encoders taken over from pre-training as a multiple of `learning_rate`; those "
        "that begin at random learn at the full one. Below 1, less of what pre-training found is changed; at 0 their "
        "weights stay as they are (the running statistics of their batch norms still follow the data).",
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
        0.0, ge=0, lt=1, description="Chance that a training sample is shown with one modality missing."
    )
    validate_every: int = Field(50, ge=1, description="Steps between two looks at the validation part.")
    pixelwise: PixelwiseConfig = Field(PixelwiseConfig(), description="The pixel-wise baselines.")
    seed: int = Field(1, ge=0, description="Added to every run seed.")


class FinetuneConfig(FinetuneSettings):
    """Supervised fine-tuning of fusion networks on label fractions."""

    sweep: list[SweepConfig] = Field(..., min_length=1, description="What is run; runs listed twice are run once.")
