"""Config of self-supervised pre-training: the methods and what they share."""

from __future__ import annotations

from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from tmcnet.config.base import Section
from tmcnet.config.training import RANDOM_START, Variant

Method = Literal["tuples", "simclr", "cross_modal"]
"""Each is a file of the same name in `tmcnet/train/methods/`."""
Part = Literal["train", "val", "test"]
Negatives = Literal["shifted", "own", "both"]
Partners = Literal["sar", "both"]
PerturbedViews = Literal["first", "both"]

PERTURBATION_KEYS = (
    "perturbed_negatives",
    "wrong_partners",
    "perturbed_views",
    "perturbation_weight",
    "perturbed_gradient",
    "shifts",
)
"""Keys that say how tuples are perturbed, and mean nothing where none are."""

TUPLE_KEYS = ("perturbation", *PERTURBATION_KEYS, "positive_in_denominator")
"""Keys of the method `tuples` alone."""


class Corrections(NamedTuple):
    """What the corrected variant changes of the published one; each field is a key of `MethodConfig`."""

    perturbed_negatives: Negatives
    wrong_partners: Partners
    perturbed_views: PerturbedViews
    perturbation_weight: float
    perturbed_gradient: bool
    positive_in_denominator: bool
    mask_same_tile: bool
    batch_norm_momentum: float
    dropout_before_statistics: bool
    photometric_by_sensor: bool


VARIANTS: dict[Variant, Corrections] = {
    "reference": Corrections("shifted", "sar", "first", 0.1, False, False, False, 0.9, True, False),
    "corrected": Corrections("own", "both", "both", 1.0, True, True, True, 0.1, False, True),
}
"""What a key of `Corrections` stands at where the method gives none."""


class MethodConfig(Section):
    """One pre-training method: TMCNet in one of its variants, an ablation of it, or a baseline."""

    method: Method = Field(
        "tuples",
        description="`tuples`: TMCNet, which compares fused tuples of all modalities. `simclr`: NT-Xent (Chen et al. "
        "2020) of all bands stacked into one image, in one encoder. `cross_modal`: InfoNCE (van den Oord et al. "
        "2018) between the images of a place, the mean over pairs of modalities. All have a global and a local term.",
    )
    variant: Variant = Field(
        "corrected",
        description="`reference`: network, loss, views and optimiser as published and coded. `corrected`: with their "
        "defects mended. The keys below that may be null mend or undo one defect each.",
    )
    modality: str = Field(
        "both",
        description="`both`: all modalities. The name of one (`optical`, `sar` or another of `sensors`) "
        "pre-trains its encoder alone, by plain NT-Xent of its two views (`tuples`).",
    )
    style: bool = Field(True, description="Global embedding from means and variances; false: from means only.")
    lambda_global: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Weight of the global loss; 1 minus it weighs the local loss. 0 or 1 drops a term.",
    )
    temperature: float = Field(0.5, gt=0, description="Temperature of the contrastive loss.")
    perturbation: bool | None = Field(
        None,
        description="Tuples with the wrong partner image as negatives (`tuples`); null: true. false: plain fused "
        "NT-Xent.",
    )
    perturbed_negatives: Negatives | None = Field(
        None,
        description="`shifted`: N - 1 more sets in which every place has the partner of another, compared with "
        "other places. `own`: a place's own tuples with the wrong partner, compared with its right one. `both`: the "
        "sum. null: `shifted` in `reference`, `own` in `corrected`.",
    )
    wrong_partners: Partners | None = Field(
        None,
        description="`sar`: tuples get the wrong SAR image, or that of another modality beside the optical one. "
        "`both`: there are also tuples with the wrong optical image. null: `sar` in `reference`, `both` in "
        "`corrected`.",
    )
    perturbed_views: PerturbedViews | None = Field(
        None,
        description="Views whose tuples are perturbed; null: `first` in `reference`, `both` in `corrected`.",
    )
    perturbation_weight: float | None = Field(
        None,
        gt=0,
        description="Weight of the embeddings of SAR and other modalities in perturbed tuples; null: 0.1 in "
        "`reference`, 1 in `corrected`.",
    )
    perturbed_gradient: bool | None = Field(
        None,
        description="Gradient through the wrong partner of a perturbed tuple; null: false in `reference`, true in "
        "`corrected`.",
    )
    shifts: int | None = Field(
        None,
        ge=1,
        description="Number of `shifted` sets, drawn anew each step; null: all N - 1.",
    )
    positive_in_denominator: bool | None = Field(
        None,
        description="Whether the positive counts in the denominator of the loss too, as in NT-Xent; null: false in "
        "`reference`, true in `corrected`.",
    )
    mask_same_tile: bool | None = Field(
        None,
        description="Patches of a tile, which may show the same ground, are not each other's negatives; null: false "
        "in `reference`, true in `corrected`.",
    )
    batch_norm_momentum: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Momentum of batch norm; null: 0.9 in `reference`, 0.1 in `corrected`.",
    )
    dropout_before_statistics: bool | None = Field(
        None,
        description="Dropout of the encoder's output acts before the channel statistics of the global embedding; "
        "false: on the way to the decoder only. null: true in `reference`, false in `corrected`.",
    )
    photometric_by_sensor: bool | None = Field(
        None,
        description="Changes of brightness and texture suit the sensor, are drawn for each image and act on both "
        "views; false: the published ones, which shift hue and value of view 2 alike in both sensors. null: false in "
        "`reference`, true in `corrected`.",
    )

    @property
    def corrections(self) -> Corrections:
        """The corrections with what the variant says in place of null."""
        given = {key: getattr(self, key) for key in Corrections._fields if getattr(self, key) is not None}
        return VARIANTS[self.variant]._replace(**given)

    @property
    def perturbs(self) -> bool:
        """Whether tuples are perturbed."""
        return self.method == "tuples" and self.modality == "both" and self.perturbation is not False

    @model_validator(mode="after")
    def _every_key_means_something(self) -> MethodConfig:
        idle = {key: why for keys, why in self._idle_keys() for key in keys if getattr(self, key) is not None}
        problems = [f"`{key}` has no meaning {why}" for key, why in idle.items()]
        if self.method != "tuples" and self.modality != "both":
            problems.append(f"`modality` has no meaning in the method `{self.method}`")
        if self.lambda_global == 0 and not self.style:
            problems.append("`style` has no meaning without the global term (`lambda_global: 0`)")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _idle_keys(self) -> list[tuple[tuple[str, ...], str]]:
        """Keys that would change nothing if they were given, and why."""
        found: list[tuple[tuple[str, ...], str]] = []
        if self.lambda_global == 1:
            found.append((("mask_same_tile",), "without the local term (`lambda_global: 1`)"))
        if self.lambda_global == 0:
            found.append((("dropout_before_statistics",), "without the global term (`lambda_global: 0`)"))
        if self.corrections.perturbed_negatives == "own":
            found.append((("shifts",), "with `perturbed_negatives: own`"))
        if self.perturbation is False:
            found.append((PERTURBATION_KEYS, "with `perturbation: false`"))
        if self.modality != "both":
            found.append((("perturbation", *PERTURBATION_KEYS), f"with `modality: {self.modality}`"))
        if self.method != "tuples":
            found.append((TUPLE_KEYS, f"in the method `{self.method}`"))
        return found


class ProbeConfig(Section):
    """A small classifier of frozen features, fitted during pre-training to see what they show of the land cover."""

    every: int | None = Field(
        None, ge=1, description="Steps between two looks, beside one before the first and after the last; null: none."
    )
    classifier: Literal["knn", "linear"] = Field(
        "knn",
        description="`knn`: vote of the 20 nearest by cosine. `linear`: logistic regression.",
    )
    fraction: float = Field(
        100, gt=0, le=100, description="Label fraction it learns from, in percent; one of `splits.fractions`."
    )
    tiles: int = Field(100, ge=1, description="Tiles of the label fraction, and of the validation part, at most.")
    pixels: int = Field(5000, ge=1, description="Pixels of the feature maps of each of these two, at most.")


class PretrainConfig(Section):
    """Self-supervised pre-training of the encoders on unlabelled pairs of the training part."""

    methods: dict[str, MethodConfig] = Field(
        {"tmcnet": MethodConfig()},
        description="Pre-training methods by name; the names appear in tables and figures.",
    )
    weights: dict[str, str] = Field(
        {},
        description="Weights from earlier runs by name, which fine-tuning can start from: safetensors files, or "
        "checkpoints of the published pre-training code (`.pth`, `.pt`, `.tar`), read without running code in them.",
    )
    parts: list[Part] = Field(
        ["train"],
        min_length=1,
        description="Parts of the splits whose imagery pre-training sees, never their labels. With `test` the scores "
        "are those of ground that was seen before, as when one maps what one has pre-trained on.",
    )
    initial_weights: str | None = Field(
        None,
        description="Safetensors file of a ResNet trained elsewhere, with the names of torchvision or timm, from "
        "which all encoders begin; the first layer is fitted to the number of bands. null: random weights.",
    )
    steps: int = Field(300, ge=1, description="Optimiser steps.")
    batch_size: int = Field(16, ge=2, description="Tile pairs in a batch.")
    accumulate: int = Field(
        1,
        ge=1,
        description="Batches whose mean gradient makes a step. Saves memory, but places meet those of their own "
        "batch only: the negatives do not grow.",
    )
    crop_size: int = Field(96, ge=32, description="Side of a view in pixels after the random resized crop.")
    crop_area: tuple[float, float] = Field((0.4, 1.0), description="Range of the share of a tile that a crop covers.")
    photometric: float = Field(
        1.0,
        ge=0,
        le=2,
        description="Strength of the changes of brightness and texture of methods with `photometric_by_sensor`; "
        "0: none.",
    )
    hue: float = Field(
        20.0,
        ge=0,
        le=180,
        description="Largest turn of hue in degrees at `photometric: 1`, where the optical sensor measures "
        "reflectance in bands named `red`, `green` and `blue`, for methods with `photometric_by_sensor`; 0: none.",
    )
    patch_size: int = Field(24, ge=4, description="Side of a local patch in pixels of the view.")
    patches: int = Field(4, ge=1, description="Corresponding patches drawn in each pair of views.")
    patch_distance: int | None = Field(
        None,
        ge=1,
        description="Smallest distance between the centres of two patches of a tile, in pixels of view 1 along x or "
        "y, as far as there is room; from `patch_size` on patches do not overlap. null: centres lie outside earlier "
        "patches, as published.",
    )
    learning_rate: float = Field(1e-3, gt=0, description="Highest learning rate.")
    weight_decay: float = Field(1e-5, ge=0, description="Weight decay.")
    warmup_steps: int = Field(20, ge=0, description="Steps over which the learning rate rises.")
    clip_norm: float | None = Field(
        None, gt=0, description="Longest gradient of all weights together; longer ones are shortened. null: none is."
    )
    compile: bool = Field(
        False, description="Compile the network (`torch.compile`), which takes a C++ compiler and pays in long runs."
    )
    probe: ProbeConfig = Field(ProbeConfig(), description="The probe.")
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
        if len(set(self.parts)) < len(self.parts):
            raise ValueError(f"`parts` names a part twice: {self.parts}")
        low, high = self.crop_area
        if not 0 < low <= high <= 1:
            raise ValueError(f"`crop_area` must be two ascending shares between 0 and 1, not {list(self.crop_area)}")
        return self
