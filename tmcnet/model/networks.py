"""The segmentation networks by name: MSSNet and plain networks to compare it with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor, nn

from tmcnet.config import ModelConfig
from tmcnet.config.base import ONLY, only_modality
from tmcnet.errors import InputError, Problem
from tmcnet.model.backbone import LOW_STRIDE, MOMENTUM, Backbone
from tmcnet.model.deeplab import ASPP, LAST_DROPOUT, Decoder, Detail, enlarge
from tmcnet.model.mssnet import MSSNet, ReferenceMSSNet
from tmcnet.model.pixelwise import PixelBoosting, PixelLogistic


class _Plain(nn.Module):
    """ASPP and decoder that follow one or several encoders of the same size."""

    def __init__(self, encoder: Backbone, bands: int, classes: int, config: ModelConfig) -> None:
        super().__init__()
        self.detail = Detail(bands, classes, config)
        self.aspp = ASPP(encoder.high_channels, config, MOMENTUM, config.dropout)
        shares = (config.dropout, LAST_DROPOUT)
        self.decoder = Decoder(config.aspp_channels, encoder.low_channels, classes, config, dropout=shares)

    def decode(self, encoder: nn.Module, image: Tensor) -> Tensor:
        """Logits of the size of an N x C x H x W image."""
        high, low = encoder(image)
        return enlarge(self.decoder(self.aspp(high), low), (image.shape[-2], image.shape[-1]), LOW_STRIDE)


class EarlyFusion(_Plain):
    """The bands of all modalities stacked into one image and one encoder."""

    def __init__(self, bands: Mapping[str, int], classes: int, config: ModelConfig) -> None:
        stacked = sum(bands.values())
        encoder = Backbone(stacked, config)
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
        encoder = Backbone(bands["optical"], config)
        super().__init__(encoder, sum(bands.values()), classes, config)
        self.modalities = tuple(bands)
        self.backbone_optical = encoder
        for name in self.modalities[1:]:
            self.add_module(f"backbone_{name}", Backbone(bands[name], config))

    def forward(self, images: Mapping[str, Tensor]) -> Tensor:
        """Logits N x K x H x W of N x C x H x W images of each modality."""
        found = [self.decode(getattr(self, f"backbone_{name}"), images[name]) for name in self.modalities]
        detail = self.detail(*(images[name] for name in self.modalities))
        logits: Tensor = reduce(torch.add, found) * (1 / len(found)) + detail
        return logits


class OneModality(_Plain):
    """An encoder of one modality; images of others are ignored."""

    def __init__(self, name: str, bands: Mapping[str, int], classes: int, config: ModelConfig) -> None:
        encoder = Backbone(bands[name], config)
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
        return PixelLogistic(bands, classes)
    if network == "pixel_boosting":
        return PixelBoosting(bands, classes)
    modality = only_modality(network)
    if modality is not None and modality in bands:
        return OneModality(modality, bands, classes, model)
    single = ", ".join(f"{name}{ONLY}" for name in bands)
    known = f"mssnet (reference, corrected), early_fusion, late_fusion, {single}, pixel_logistic, pixel_boosting"
    raise InputError(Problem(f"network `{network}`, variant `{variant}`", "is not known", f"Known are: {known}."))
