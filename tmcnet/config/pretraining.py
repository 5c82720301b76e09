"""Config of self-supervised pre-training: the methods and what they share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field, WithJsonSchema, field_validator

from tmcnet.config.base import Section
from tmcnet.config.splits import Part
from tmcnet.config.training import RANDOM_START, SELF_TRAINING, Budget, Variant
from tmcnet.registry import METHODS


def _is_method(name: str) -> str:
    if name not in METHODS:
        raise ValueError(f"there is no method `{name}`; there are {', '.join(METHODS)}")
    return name


Method = Annotated[str, AfterValidator(_is_method), WithJsonSchema({"enum": list(METHODS)})]
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
"""Keys that describe perturbed tuples; without effect if there are none."""

TUPLE_KEYS = ("perturbation", *PERTURBATION_KEYS, "positive_in_denominator")
"""Keys that only the method `tuples` has."""


class Corrections(NamedTuple):
    """Values that differ between the variants; each field is a key of `MethodConfig` (docs/method.md, section 11)."""

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
"""Values of `Corrections` if the method gives none."""


class MethodConfig(Section):
    """One pre-training method: a variant of TMCNet, an ablation of it, or a baseline."""

    method: Method = "tuples"
    """`tuples`: TMCNet, which compares fused tuples of all modalities. `simclr`: NT-Xent (Chen et al. 2020) of all
    bands stacked into one image, with one encoder. `cross_modal`: InfoNCE (van den Oord et al. 2018) between
    modalities, the mean over all pairs of modalities. All have a global and a local term."""
    variant: Variant = "corrected"
    """`reference`: network, loss, views and optimiser as in the published code. `corrected`: with its defects fixed
    (docs/method.md). Each key below that may be null sets one of the differences."""
    modality: str = "both"
    """`both`: all modalities. The name of one of `sensors`, such as `optical`: pre-train only its encoder with
    NT-Xent of two views (method `tuples`)."""
    style: bool = True
    """Global embedding from channel means and variances; false: means only."""
    lambda_global: float = Field(0.5, ge=0, le=1)
    """Weight of the global loss; the local loss has 1 minus it. 0 or 1 removes a term."""
    patch_scales: list[Annotated[float, Field(gt=0, le=1)]] = Field([1.0], min_length=1)
    """Sides of the patches that the local term compares, as shares of `patch_size`; all are in the middle of the same
    patch. The term is the mean over them."""
    reconstruction: float = Field(0.0, ge=0)
    """Weight of a third term, the error of the values of each modality as predicted from the maps of the others; 0:
    none."""
    hidden: float = Field(0.0, ge=0, lt=1)
    """Share of the blocks of 32 pixels of a view in which one modality, drawn for each block, is hidden from its
    encoder like no data. Then hidden values alone are predicted, from the maps of all modalities. Needs
    `reconstruction`."""
    temperature: float = Field(0.5, gt=0)
    """Temperature of the contrastive loss."""
    perturbation: bool | None = None
    """Use tuples with the wrong partner image as negatives (`tuples`). null: true. false: NT-Xent of the fused
    tuples."""
    perturbed_negatives: Negatives | None = None
    """`shifted`: N - 1 more sets in which every place has the partner of another place; tuples of other places are
    negatives. `own`: tuples of the same place with a wrong partner are negatives. `both`: the sum. null: `shifted` in
    `reference`, `own` in `corrected`."""
    wrong_partners: Partners | None = None
    """`sar`: tuples with a wrong image of SAR or another non-optical modality. `both`: also tuples with a wrong
    optical image. null: `sar` in `reference`, `both` in `corrected`."""
    perturbed_views: PerturbedViews | None = None
    """Views with perturbed tuples. null: `first` in `reference`, `both` in `corrected`."""
    perturbation_weight: float | None = Field(None, gt=0)
    """Weight of the non-optical embeddings in perturbed tuples. null: 0.1 in `reference`, 1 in `corrected`."""
    perturbed_gradient: bool | None = None
    """Gradient through the wrong partner of a perturbed tuple. null: false in `reference`, true in `corrected`."""
    shifts: int | None = Field(None, ge=1)
    """Number of `shifted` sets, drawn in each step. null: all N - 1."""
    positive_in_denominator: bool | None = None
    """Add the positive to the denominator of the loss, as NT-Xent does. null: false in `reference`, true in
    `corrected`."""
    mask_same_tile: bool | None = None
    """Patches of one tile are not negatives of each other, because they may show the same ground. null: false in
    `reference`, true in `corrected`."""
    batch_norm_momentum: float | None = Field(None, gt=0, le=1)
    """Momentum of batch norm. null: 0.9 in `reference`, 0.1 in `corrected`."""
    dropout_before_statistics: bool | None = None
    """Apply dropout to the encoder's output before the channel statistics of the global embedding; false: only before
    the decoder. null: true in `reference`, false in `corrected`."""
    photometric_by_sensor: bool | None = None
    """Photometric augmentation that suits each sensor, drawn for every image of both views; false: the published one,
    which changes hue and value of view 2 equally in all modalities. null: false in `reference`, true in
    `corrected`."""

    @property
    def corrections(self) -> Corrections:
        """Values of the corrections, with those of the variant for null."""
        given = {key: getattr(self, key) for key in Corrections._fields if getattr(self, key) is not None}
        return VARIANTS[self.variant]._replace(**given)

    @property
    def perturbs(self) -> bool:
        """Whether tuples are perturbed."""
        return self.method == "tuples" and self.modality == "both" and self.perturbation is not False

    def _problems(self) -> Iterator[str]:
        idle = {key: why for keys, why in self._idle_keys() for key in keys if getattr(self, key) is not None}
        yield from (f"`{key}` has no effect {why}" for key, why in idle.items())
        if self.method != "tuples" and self.modality != "both":
            yield f"`modality` has no effect in the method `{self.method}`"
        if self.reconstruction and (self.method == "simclr" or self.modality != "both"):
            yield "`reconstruction` needs an encoder for each of several modalities"
        if len(set(self.patch_scales)) < len(self.patch_scales):
            yield f"`patch_scales` {self.patch_scales} has a scale twice"
        if self.hidden and not self.reconstruction:
            yield "`hidden` has no effect without `reconstruction`"
        if self.lambda_global == 1 and self.patch_scales != [1]:
            yield "`patch_scales` has no effect without the local term (`lambda_global: 1`)"
        if self.lambda_global == 0 and not self.style:
            yield "`style` has no effect without the global term (`lambda_global: 0`)"

    def _idle_keys(self) -> Iterator[tuple[tuple[str, ...], str]]:
        """Keys without effect, and why."""
        if self.lambda_global == 1:
            yield ("mask_same_tile",), "without the local term (`lambda_global: 1`)"
        if self.lambda_global == 0:
            yield ("dropout_before_statistics",), "without the global term (`lambda_global: 0`)"
        if self.corrections.perturbed_negatives == "own":
            yield ("shifts",), "with `perturbed_negatives: own`"
        if self.perturbation is False:
            yield PERTURBATION_KEYS, "with `perturbation: false`"
        if self.modality != "both":
            yield ("perturbation", *PERTURBATION_KEYS), f"with `modality: {self.modality}`"
        if self.method != "tuples":
            yield TUPLE_KEYS, f"in the method `{self.method}`"


def patch_side(patch_size: int, scale: float) -> int:
    """Side in pixels of the smaller patch in the middle of one of `patch_size`: their difference is even."""
    return patch_size - 2 * round(patch_size * (1 - scale) / 2)


class ProbeConfig(Section):
    """Linear or nearest-neighbour probe: how well frozen features separate the classes during pre-training."""

    every: int | None = Field(None, ge=1)
    """Steps between two probes; also before the first and after the last step. null: none."""
    classifier: Literal["knn", "linear"] = "knn"
    """`knn`: vote of the 20 nearest neighbours by cosine. `linear`: logistic regression."""
    fraction: float = Field(100, gt=0, le=100)
    """Label fraction to fit on, in percent; one of `splits.fractions`."""
    tiles: int = Field(100, ge=1)
    """Maximum number of tiles of the label fraction, and of the validation part."""
    pixels: int = Field(5000, ge=1)
    """Maximum number of feature map pixels of each of these two."""

    @property
    def subset(self) -> str:
        """Name of the list of labels to fit on."""
        return Budget("R", self.fraction).subset(1)


class PretrainConfig(Section):
    """Self-supervised pre-training of the encoders on unlabelled pairs of the training part."""

    methods: dict[str, MethodConfig] = {"tmcnet": MethodConfig()}
    """Pre-training methods by name, as shown in tables and figures. null removes a method of the preset: `{tmcnet:
    null}`."""
    weights: dict[str, str] = {}
    """Weights by name that fine-tuning can start from: safetensors files of earlier runs, or checkpoints of the
    published pre-training code (`.pth`, `.pt`, `.tar`), which are read without running code."""
    parts: list[Part] = Field(["train"], min_length=1)
    """Parts whose imagery, never labels, is used for pre-training. With `test` the scores apply to ground that was
    seen in pre-training, as for maps of that same ground."""
    initial_weights: str | None = None
    """Safetensors file of a ResNet with the tensor names of torchvision or timm, from which all encoders start; the
    first layer is adapted to the number of bands. null: random weights."""
    steps: int = Field(300, ge=1)
    """Optimiser steps."""
    batch_size: int = Field(16, ge=2)
    """Tiles per batch."""
    accumulate: int = Field(1, ge=1)
    """Batches per step, whose gradients are averaged. Saves memory, but the loss compares only places of the same
    batch: the number of negatives does not grow."""
    crop_size: int = Field(96, ge=32)
    """Side of a view in pixels."""
    photometric: float = Field(1.0, ge=0, le=2)
    """Strength of the photometric augmentation with `photometric_by_sensor`; 0: none."""
    hue: float = Field(20.0, ge=0, le=180)
    """Maximum hue rotation in degrees at `photometric: 1` with `photometric_by_sensor`, for optical reflectance with
    bands named `red`, `green` and `blue`; 0: none."""
    patch_size: int = Field(24, ge=4)
    """Side of a local patch in pixels of the view."""
    patches: int = Field(4, ge=1)
    """Corresponding patches per pair of views."""
    learning_rate: float = Field(1e-3, gt=0)
    """Maximum learning rate."""
    weight_decay: float = Field(1e-5, ge=0)
    """Weight decay."""
    warmup_steps: int = Field(20, ge=0)
    """Steps of linear warm-up of the learning rate."""
    clip_norm: float | None = Field(None, gt=0)
    """Maximum norm of the gradient of all weights; longer ones are scaled down. null: no limit."""
    probe: ProbeConfig = ProbeConfig()
    log_every: int = Field(10, ge=1)
    """Steps between two points of the loss curves."""
    checkpoint_every: int = Field(100, ge=1)
    """Steps between two checkpoints, from which a killed run resumes."""
    seed: int = Field(1, ge=0)
    """Seed of initial weights and views."""

    @field_validator("methods", mode="before", json_schema_input_type=dict[str, MethodConfig | None])
    @classmethod
    def _null_removes_a_method(cls, methods: object) -> object:
        return {k: v for k, v in methods.items() if v is not None} if isinstance(methods, dict) else methods

    def _problems(self) -> Iterator[str]:
        if self.patch_size > self.crop_size:
            yield f"`patch_size` ({self.patch_size}) must not exceed `crop_size` ({self.crop_size})"
        for name, method in self.methods.items():
            sides = [patch_side(self.patch_size, scale) for scale in method.patch_scales]
            if min(sides) < 1 or len(set(sides)) < len(sides):
                scales = f"`methods.{name}.patch_scales` {method.patch_scales}"
                yield f"{scales} make patches of {sides} pixels; they must differ and have at least one"
        names = [RANDOM_START, *SELF_TRAINING, *self.methods, *self.weights]
        if len(set(names)) < len(names):
            reserved = ", ".join(f"`{name}`" for name in (RANDOM_START, *SELF_TRAINING))
            yield f"names in `methods` and `weights` must differ from each other and from {reserved}"
        if bad := [n for n in names if not n.replace("-", "").replace("_", "").isalnum() or "__" in n]:
            yield f"method names may contain letters, digits, single `_` and `-`, not {bad}"
        if len(set(self.parts)) < len(self.parts):
            yield f"`parts` names a part twice: {self.parts}"
