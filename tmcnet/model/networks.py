"""The segmentation networks by name: MSSNet and the plain ones it must beat."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tmcnet.config import ModelConfig
from tmcnet.errors import InputError, Problem
from tmcnet.model.backbone import Backbone
from tmcnet.model.deeplab import ASPP, LOW_STRIDE, Decoder, Detail, enlarge
from tmcnet.model.mssnet import LAST_DROPOUT, MSSNet, ReferenceMSSNet
from tmcnet.model.pixelwise import PixelBoosting, PixelLogistic

MOMENTUM = 0.1
"""Batch-norm momentum of all networks but the published one."""

_STEM = "stem.0.weight"

STACKED = "backbone_stacked."
"""Start of the names of tensors in an encoder that was pre-trained on the stacked bands of both sensors."""


class _Plain(nn.Module):
    """ASPP and decoder that follow one or several encoders of the same size."""

    def __init__(self, encoder: Backbone, bands: int, classes: int, config: ModelConfig) -> None:
        super().__init__()
        self.detail = Detail(bands, classes, config, MOMENTUM)
        self.aspp = ASPP(encoder.high_channels, config, MOMENTUM, config.dropout, config.image_pooling)
        self.decoder = Decoder(
            config.aspp_channels, encoder.low_channels, classes, config, MOMENTUM, (config.dropout, LAST_DROPOUT)
        )

    def decode(self, encoder: Backbone, image: Tensor) -> Tensor:
        """Logits of the size of an N x C x H x W image."""
        high, low = encoder(image)
        return enlarge(self.decoder(self.aspp(high), low), (image.shape[-2], image.shape[-1]), LOW_STRIDE)


class EarlyFusion(_Plain):
    """The bands of both sensors stacked into one image and one encoder."""

    def __init__(self, optical_bands: int, sar_bands: int, classes: int, config: ModelConfig) -> None:
        encoder = Backbone(optical_bands + sar_bands, config, MOMENTUM)
        super().__init__(encoder, optical_bands + sar_bands, classes, config)
        self.backbone_optical = encoder

    def forward(self, optical: Tensor, sar: Tensor) -> Tensor:
        """Logits N x K x H x W of optical N x Co x H x W and SAR N x Cs x H x W."""
        stacked = torch.cat([optical, sar], dim=1)
        logits: Tensor = self.decode(self.backbone_optical, stacked) + self.detail(stacked)
        return logits


class LateFusion(_Plain):
    """An encoder for each sensor, one pyramid and decoder for both, and the mean of the two sets of logits."""

    def __init__(self, optical_bands: int, sar_bands: int, classes: int, config: ModelConfig) -> None:
        encoder = Backbone(optical_bands, config, MOMENTUM)
        super().__init__(encoder, optical_bands + sar_bands, classes, config)
        self.backbone_optical = encoder
        self.backbone_sar = Backbone(sar_bands, config, MOMENTUM)

    def forward(self, optical: Tensor, sar: Tensor) -> Tensor:
        """Logits N x K x H x W of optical N x Co x H x W and SAR N x Cs x H x W."""
        both = self.decode(self.backbone_optical, optical) + self.decode(self.backbone_sar, sar)
        logits: Tensor = 0.5 * both + self.detail(optical, sar)
        return logits


class OpticalOnly(_Plain):
    """The optical image alone."""

    def __init__(self, optical_bands: int, classes: int, config: ModelConfig) -> None:
        encoder = Backbone(optical_bands, config, MOMENTUM)
        super().__init__(encoder, optical_bands, classes, config)
        self.backbone_optical = encoder

    def forward(self, optical: Tensor, sar: Tensor) -> Tensor:  # noqa: ARG002 - all networks are called alike
        """Logits N x K x H x W of optical N x Co x H x W; the SAR image is not looked at."""
        logits: Tensor = self.decode(self.backbone_optical, optical) + self.detail(optical)
        return logits


class SarOnly(_Plain):
    """The SAR image alone."""

    def __init__(self, sar_bands: int, classes: int, config: ModelConfig) -> None:
        encoder = Backbone(sar_bands, config, MOMENTUM)
        super().__init__(encoder, sar_bands, classes, config)
        self.backbone_sar = encoder

    def forward(self, optical: Tensor, sar: Tensor) -> Tensor:  # noqa: ARG002 - all networks are called alike
        """Logits N x K x H x W of SAR N x Cs x H x W; the optical image is not looked at."""
        logits: Tensor = self.decode(self.backbone_sar, sar) + self.detail(sar)
        return logits


def build_network(
    network: str, variant: str, optical_bands: int, sar_bands: int, classes: int, model: ModelConfig
) -> nn.Module:
    """Build a segmentation network with random weights, or an empty pixel-wise baseline.

    Args:
        network: `mssnet`, `early_fusion`, `late_fusion`, `optical_only`, `sar_only`, `pixel_logistic` or
            `pixel_boosting`.
        variant: `reference` or `corrected` for `mssnet`; the others have one variant.
        optical_bands: Bands of the optical image.
        sar_bands: Bands of the SAR image.
        classes: Number of classes K.
        model: Sizes.

    Returns:
        A module that maps optical N x Co x H x W and SAR N x Cs x H x W to logits N x K x H x W.

    Raises:
        InputError: If there is no such network or variant.
    """
    if network == "mssnet" and variant == "reference":
        return ReferenceMSSNet(optical_bands, sar_bands, classes, model)
    if network == "mssnet" and variant == "corrected":
        return MSSNet(optical_bands, sar_bands, classes, model)
    if network == "early_fusion":
        return EarlyFusion(optical_bands, sar_bands, classes, model)
    if network == "late_fusion":
        return LateFusion(optical_bands, sar_bands, classes, model)
    if network == "optical_only":
        return OpticalOnly(optical_bands, classes, model)
    if network == "sar_only":
        return SarOnly(sar_bands, classes, model)
    if network == "pixel_logistic":
        return PixelLogistic(optical_bands, sar_bands, classes, model)
    if network == "pixel_boosting":
        return PixelBoosting(optical_bands, sar_bands, classes, model)
    fusing = "mssnet (reference, corrected), early_fusion, late_fusion"
    known = f"{fusing}, optical_only, sar_only, pixel_logistic, pixel_boosting"
    raise InputError(Problem(f"network `{network}`, variant `{variant}`", "is not known", f"There are: {known}."))


def stack_stems(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pre-trained tensors for `EarlyFusion`.

    An encoder of stacked bands is taken as it is. Of an encoder for each sensor, the filters of the first layers are
    put side by side, and everything behind them comes from the optical one, or from the only one there is. Without
    this the first layer of a pre-trained encoder would not fit stacked bands, and early fusion would start with a
    handicap that is none of its own.
    """
    if any(name.startswith(STACKED) for name in state):
        return _renamed(state, STACKED, "backbone_optical.")
    stems = [state.get(f"backbone_{sensor}.{_STEM}") for sensor in ("optical", "sar")]
    found = [stem for stem in stems if stem is not None]
    if len(found) == 1 and stems[0] is None:
        return _renamed(state, "backbone_sar.", "backbone_optical.")
    if len(found) < 2 or found[0].shape[0] != found[1].shape[0]:
        return dict(state)
    return {**state, f"backbone_optical.{_STEM}": torch.cat(found, dim=1)}


def split_stem(state: Mapping[str, Tensor], optical_bands: int) -> dict[str, Tensor]:
    """Pre-trained tensors of stacked bands for networks with an encoder for each sensor.

    Each sensor gets the filters of its own bands in the first layer, and everything behind it.

    Args:
        state: Tensors by name, with those of an encoder of stacked bands.
        optical_bands: How many of the stacked bands are optical; they come first.
    """
    stem = state[f"{STACKED}{_STEM}"]
    stems = {"optical": stem[:, :optical_bands], "sar": stem[:, optical_bands:]}
    found: dict[str, Tensor] = {}
    for sensor, columns in stems.items():
        found |= _renamed({**state, f"{STACKED}{_STEM}": columns}, STACKED, f"backbone_{sensor}.")
    return found


def _renamed(state: Mapping[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    return {new + name.removeprefix(old) if name.startswith(old) else name: t for name, t in state.items()}
