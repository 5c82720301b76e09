"""The segmentation networks by name: MSSNet and the plain ones it must beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from tmcnet.config import ModelConfig
from tmcnet.config.base import ONLY, only_modality
from tmcnet.errors import InputError, Problem
from tmcnet.model.backbone import Backbone
from tmcnet.model.deeplab import ASPP, LOW_STRIDE, Decoder, Detail, enlarge
from tmcnet.model.mssnet import LAST_DROPOUT, MSSNet, ReferenceMSSNet
from tmcnet.model.pixelwise import PixelBoosting, PixelLogistic

MOMENTUM = 0.1
"""Batch-norm momentum of all networks but the published one."""

_STEM = "stem.0.weight"

STACKED = "backbone_stacked."
"""Start of the names of tensors in an encoder that was pre-trained on the stacked bands of all modalities."""


class _Plain(nn.Module):
    """ASPP and decoder that follow one or several encoders of the same size."""

    def __init__(self, encoder: Backbone, bands: int, classes: int, config: ModelConfig) -> None:
        super().__init__()
        self.detail = Detail(bands, classes, config, MOMENTUM)
        self.aspp = ASPP(encoder.high_channels, config, MOMENTUM, config.dropout, config.image_pooling)
        self.decoder = Decoder(
            config.aspp_channels, encoder.low_channels, classes, config, MOMENTUM, (config.dropout, LAST_DROPOUT)
        )

    def decode(self, encoder: nn.Module, image: Tensor) -> Tensor:
        """Logits of the size of an N x C x H x W image."""
        high, low = encoder(image)
        return enlarge(self.decoder(self.aspp(high), low), (image.shape[-2], image.shape[-1]), LOW_STRIDE)


class EarlyFusion(_Plain):
    """The bands of all modalities stacked into one image and one encoder."""

    def __init__(self, bands: Mapping[str, int], classes: int, config: ModelConfig) -> None:
        stacked = sum(bands.values())
        encoder = Backbone(stacked, config, MOMENTUM)
        super().__init__(encoder, stacked, classes, config)
        self.modalities = tuple(bands)
        self.backbone_optical = encoder

    def forward(self, images: Mapping[str, Tensor]) -> Tensor:
        """Logits N x K x H x W of N x C x H x W images of each modality."""
        stacked = torch.cat([images[name] for name in self.modalities], dim=1)
        logits: Tensor = self.decode(self.backbone_optical, stacked) + self.detail(stacked)
        return logits


class LateFusion(_Plain):
    """An encoder for each modality, one pyramid and decoder for all, and the mean of the sets of logits."""

    def __init__(self, bands: Mapping[str, int], classes: int, config: ModelConfig) -> None:
        encoder = Backbone(bands["optical"], config, MOMENTUM)
        super().__init__(encoder, sum(bands.values()), classes, config)
        self.modalities = tuple(bands)
        self.backbone_optical = encoder
        for name in self.modalities[1:]:
            self.add_module(f"backbone_{name}", Backbone(bands[name], config, MOMENTUM))

    def forward(self, images: Mapping[str, Tensor]) -> Tensor:
        """Logits N x K x H x W of N x C x H x W images of each modality."""
        found = [self.decode(getattr(self, f"backbone_{name}"), images[name]) for name in self.modalities]
        detail = self.detail(*(images[name] for name in self.modalities))
        logits: Tensor = reduce(torch.add, found) * (1 / len(found)) + detail
        return logits


class OneModality(_Plain):
    """One modality alone; networks of all kinds are called alike, so the images of the others come in as well."""

    def __init__(self, name: str, bands: Mapping[str, int], classes: int, config: ModelConfig) -> None:
        encoder = Backbone(bands[name], config, MOMENTUM)
        super().__init__(encoder, bands[name], classes, config)
        self.modality = name
        self.add_module(f"backbone_{name}", encoder)

    def forward(self, images: Mapping[str, Tensor]) -> Tensor:
        """Logits N x K x H x W of N x C x H x W images of each modality, of which one is used."""
        image = images[self.modality]
        logits: Tensor = self.decode(self.get_submodule(f"backbone_{self.modality}"), image) + self.detail(image)
        return logits


def build_network(
    network: str, variant: str, bands: Mapping[str, int], classes: int, model: ModelConfig
) -> nn.Module:
    """Build a segmentation network with random weights, or an empty pixel-wise baseline.

    Args:
        network: `mssnet`, `early_fusion`, `late_fusion`, `<modality>_only` (such as `optical_only`),
            `pixel_logistic` or `pixel_boosting`.
        variant: `reference` or `corrected` for `mssnet`; the others have one variant.
        bands: Number of bands of each modality by name; their order is that of stacked bands.
        classes: Number of classes K.
        model: Sizes.

    Returns:
        A module that maps N x C x H x W images of each modality by name to logits N x K x H x W.

    Raises:
        InputError: If there is no such network or variant.
    """
    if network == "mssnet" and variant == "reference":
        return ReferenceMSSNet(bands, classes, model)
    if network == "mssnet" and variant == "corrected":
        return MSSNet(bands, classes, model)
    if network == "early_fusion":
        return EarlyFusion(bands, classes, model)
    if network == "late_fusion":
        return LateFusion(bands, classes, model)
    if network == "pixel_logistic":
        return PixelLogistic(bands, classes, model)
    if network == "pixel_boosting":
        return PixelBoosting(bands, classes, model)
    modality = only_modality(network)
    if modality is not None and modality in bands:
        return OneModality(modality, bands, classes, model)
    single = ", ".join(f"{name}{ONLY}" for name in bands)
    known = f"mssnet (reference, corrected), early_fusion, late_fusion, {single}, pixel_logistic, pixel_boosting"
    raise InputError(Problem(f"network `{network}`, variant `{variant}`", "is not known", f"There are: {known}."))


def stack_stems(state: Mapping[str, Tensor], modalities: Sequence[str] = ("optical", "sar")) -> dict[str, Tensor]:
    """Pre-trained tensors for `EarlyFusion`.

    An encoder of stacked bands is taken as it is. Of an encoder for each modality, the filters of the first layers
    are put side by side, and everything behind them comes from the optical one, or from the only one there is.
    Without this the first layer of a pre-trained encoder would not fit stacked bands, and early fusion would start
    with a handicap that is none of its own.

    Args:
        state: Tensors by name.
        modalities: Their names, in the order in which the bands are stacked.
    """
    if any(name.startswith(STACKED) for name in state):
        return _renamed(state, STACKED, "backbone_optical.")
    stems = {name: state[f"backbone_{name}.{_STEM}"] for name in modalities if f"backbone_{name}.{_STEM}" in state}
    if len(stems) == 1 and "optical" not in stems:
        return _renamed(state, f"backbone_{next(iter(stems))}.", "backbone_optical.")
    if len(stems) < len(modalities) or len({stem.shape[0] for stem in stems.values()}) > 1:
        return dict(state)
    return {**state, f"backbone_optical.{_STEM}": torch.cat(list(stems.values()), dim=1)}


def split_stem(state: Mapping[str, Tensor], bands: Mapping[str, int]) -> dict[str, Tensor]:
    """Pre-trained tensors of stacked bands for networks with an encoder for each modality.

    Each modality gets the filters of its own bands in the first layer, and everything behind it.

    Args:
        state: Tensors by name, with those of an encoder of stacked bands.
        bands: Number of bands of each modality by name, in the order in which they are stacked.
    """
    stems = torch.split(state[f"{STACKED}{_STEM}"], list(bands.values()), dim=1)
    found: dict[str, Tensor] = {}
    for name, columns in zip(bands, stems, strict=True):
        found |= _renamed({**state, f"{STACKED}{_STEM}": columns}, STACKED, f"backbone_{name}.")
    return found


def _renamed(state: Mapping[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {new + name.removeprefix(old) if name.startswith(old) else name: t for name, t in state.items()}
