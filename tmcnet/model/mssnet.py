"""MSSNet, the segmentation network of TMCNet (Ye et al., IEEE TGRS 2025), as published and mended."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tmcnet.config import ModelConfig
from tmcnet.model.backbone import Backbone, edge_padding
from tmcnet.model.deeplab import ASPP, LOW_STRIDE, Decoder, Detail, enlarge, image_size
from tmcnet.model.fusion import FeatureFusion, FeatureRectify, LocalFusion, MultiScaleAttention

PUBLISHED_DROPOUT = 0.5
"""Share of the encoder's output, and of the decoder's first map, that the published network drops."""

LAST_DROPOUT = 0.1
"""Share of the decoder's last map that is dropped when it predicts classes."""

SAR_SCALE = 0.1
"""Factor on SAR features in the published code, applied before rectification and again before fusion."""

BOTTLENECK = 8
"""The corrected network fuses at one eighth of the encoder's channels."""

_FEWEST_CHANNELS = 16


class _Head(nn.Module):
    """What follows the fusion in both variants: pyramid, attention and decoder.

    `published` adds all that ties a pixel to the window it is seen in: image pooling, attention to the mean of the
    map, enlargement with aligned corners, and padding with zeros.
    """

    def __init__(
        self, encoder: Backbone, classes: int, config: ModelConfig, momentum: float, dropout: float, published: bool
    ) -> None:
        super().__init__()
        self.factor = None if published else LOW_STRIDE
        pooling = published or config.image_pooling
        self.aspp = ASPP(encoder.high_channels, config, momentum, dropout, pooling, edge_padding(published))
        self.attention_high, self.attention_low = (
            MultiScaleAttention(channels, batch_norm_momentum=momentum, whole=published)
            for channels in (config.aspp_channels, encoder.low_channels)
        )
        shares = (dropout, LAST_DROPOUT)
        self.decoder = Decoder(
            config.aspp_channels, encoder.low_channels, classes, config, momentum, shares, published
        )

    def decode(self, high: Tensor, low: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits of `size` from the fused maps."""
        logits = self.decoder(self.attention_high(self.aspp(high)), self.attention_low(low))
        return enlarge(logits, size, self.factor)


class MSSNet(_Head):
    """The corrected network: an encoder for each modality, and fusion of all at few channels at two levels.

    Nothing in it looks at a window as a whole, so that a place gets the same class in whatever window it is seen.

    Args:
        bands: Bands of each modality by name, in the order in which their images come.
        classes: K.
        config: Sizes.
        batch_norm_momentum: Momentum in torch's sense.
    """

    def __init__(
        self,
        bands: Mapping[str, int],
        classes: int,
        config: ModelConfig,
        batch_norm_momentum: float = 0.1,
    ) -> None:
        encoder = Backbone(bands["optical"], config, batch_norm_momentum)
        super().__init__(encoder, classes, config, batch_norm_momentum, config.dropout, published=False)
        self.modalities = tuple(bands)
        self.backbone_optical = encoder
        for name in self.modalities[1:]:
            self.add_module(f"backbone_{name}", Backbone(bands[name], config, batch_norm_momentum))
        self.detail = Detail(sum(bands.values()), classes, config, batch_norm_momentum)
        self.fuse_high, self.fuse_low = (
            LocalFusion(channels, max(channels // BOTTLENECK, _FEWEST_CHANNELS), self.modalities, batch_norm_momentum)
            for channels in (encoder.high_channels, encoder.low_channels)
        )

    def forward(self, images: Mapping[str, Tensor]) -> Tensor:
        """Logits N x K x H x W of N x C x H x W images of each modality."""
        maps = [self.get_submodule(f"backbone_{name}")(images[name]) for name in self.modalities]
        high, low = self.fuse_high(*(high for high, _ in maps)), self.fuse_low(*(low for _, low in maps))
        detail = self.detail(*(images[name] for name in self.modalities))
        logits: Tensor = self.decode(high, low, image_size(images)) + detail
        return logits


class _PublishedFusion(nn.Module):
    """Rectification and fusion of two maps at all channels, the second (SAR) scaled down before each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rectify = FeatureRectify(channels)
        self.fuse = FeatureFusion(channels)

    def forward(self, optical: Tensor, sar: Tensor) -> Tensor:
        """Fuse two N x C x h x w maps into one."""
        rectified_optical, rectified_sar = self.rectify(optical, SAR_SCALE * sar)
        fused: Tensor = self.fuse(rectified_optical, SAR_SCALE * rectified_sar)
        return fused


class ReferenceMSSNet(_Head):
    """The network as coded by its authors where their code runs; what they build and never use is left out.

    All sensors pass through one encoder. The published one asks for as many SAR as optical bands; here the encoder
    takes the larger of the numbers, and a sensor with fewer bands repeats them in turn (one SAR band is copied to all
    channels, as the authors' data are). The published fusion takes two maps, so other modalities are fused one
    after the other to what was fused before them, in the place of SAR and by separate modules.

    Args:
        bands: Bands of each modality by name, in the order in which their images come.
        classes: K.
        config: Sizes.
        batch_norm_momentum: Momentum in torch's sense; 0.9 as published.
    """

    def __init__(
        self,
        bands: Mapping[str, int],
        classes: int,
        config: ModelConfig,
        batch_norm_momentum: float = 0.9,
    ) -> None:
        most = max(bands.values())
        encoder = Backbone(most, config, batch_norm_momentum, padding="zeros")
        super().__init__(encoder, classes, config, batch_norm_momentum, PUBLISHED_DROPOUT, published=True)
        self.bands = most
        self.modalities = tuple(bands)
        self.backbone_optical = encoder
        for name in self.modalities[1:]:
            self.add_module(self._fusion("high", name), _PublishedFusion(encoder.high_channels))
            self.add_module(self._fusion("low", name), _PublishedFusion(encoder.low_channels))

    @staticmethod
    def _fusion(level: str, modality: str) -> str:
        """Name of the module that fuses a modality to those before it."""
        return f"fuse_{level}" if modality == "sar" else f"fuse_{level}_{modality}"

    def forward(self, images: Mapping[str, Tensor]) -> Tensor:
        """Logits N x K x H x W of N x C x H x W images of each modality."""
        maps = {name: self.backbone_optical(repeat_bands(images[name], self.bands)) for name in self.modalities}
        high, low = maps.pop(self.modalities[0])
        for name, (other_high, other_low) in maps.items():
            high = self.get_submodule(self._fusion("high", name))(high, other_high)
            low = self.get_submodule(self._fusion("low", name))(low, other_low)
        return self.decode(high, low, image_size(images))


def repeat_bands(image: Tensor, bands: int) -> Tensor:
    """The bands of an N x C x H x W image in turn, 0, 1, ..., C-1, 0, 1, ..., until there are `bands`."""
    if image.shape[1] == bands:
        return image
    return image[:, torch.arange(bands, device=image.device) % image.shape[1]]
