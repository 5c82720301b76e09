"""MSSNet, the segmentation network of TMCNet (Ye et al., IEEE TGRS 2025); docs/method.md, section 7.

`FeatureRectify`, `FeatureFusion` and `MultiScaleAttention` compute what the published modules compute; the first two
descend from CMX (Zhang et al. 2023), the third from attentional feature fusion (Dai et al. 2021). `LocalFusion` is
this project's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from tmcnet.config import ModelConfig
from tmcnet.model.backbone import LOW_STRIDE, MOMENTUM, Backbone, initialise
from tmcnet.model.context import Detail, enlarge
from tmcnet.model.deeplab import (
    ASPP,
    LAST_DROPOUT,
    PUBLISHED_DROPOUT,
    Decoder,
    conv_norm_relu,
    image_size,
    start_undecided,
)

PUBLISHED_MOMENTUM = 0.9
"""Batch-norm momentum of the published network, in torch's sense: the newest batch's share."""
SAR_SCALE = 0.1
"""Factor on SAR features in the published code, applied before rectification and again before fusion."""
BOTTLENECK, MIN_BOTTLENECK_CHANNELS = 8, 16
"""The corrected network fuses at one eighth of the encoder's channels, but at no fewer than this number."""


class FeatureRectify(nn.Module):
    """Correct the features of each modality by those of the other, first per channel, then per pixel.

    Two N x C x H x W maps go in and come out. Every correction adds a half of the other map, gated between 0 and 1;
    the pixel gates are computed from maps that the channel gates have already corrected.
    """

    strength = 0.5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.channel_gate = nn.Sequential(
            nn.Linear(4 * channels, 4 * channels), nn.ReLU(inplace=True), nn.Linear(4 * channels, 2 * channels)
        )
        self.pixel_gate = nn.Sequential(
            nn.Conv2d(2 * channels, channels, 1), nn.ReLU(inplace=True), nn.Conv2d(channels, 2, 1)
        )

    def forward(self, optical: Tensor, sar: Tensor) -> tuple[Tensor, Tensor]:
        """Return corrected (optical, SAR) maps, each N x C x H x W."""
        both = torch.cat([optical, sar], dim=1)
        pooled = torch.cat([both.mean(dim=(2, 3)), both.amax(dim=(2, 3))], dim=1)
        to_sar, to_optical = self.channel_gate(pooled).sigmoid()[..., None, None].split(self.channels, dim=1)
        optical_1 = optical + self.strength * to_optical * sar
        sar_1 = sar + self.strength * to_sar * optical
        to_sar, to_optical = self.pixel_gate(torch.cat([optical_1, sar_1], dim=1)).sigmoid().split(1, dim=1)
        return optical_1 + self.strength * to_optical * sar, sar_1 + self.strength * to_sar * optical


class _Stream(nn.Module):
    """The projections of one modality inside `FeatureFusion`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(channels, 2 * channels)
        self.key_value = nn.Linear(channels, 2 * channels, bias=False)
        self.join = nn.Linear(2 * channels, channels)
        self.norm = nn.LayerNorm(channels)


class FeatureFusion(nn.Module):
    """Linear cross-attention between two modalities, then a 1x1 convolution that makes one map of two.

    Attention is of the efficient kind (Shen et al. 2021): keys and values of one modality are summed up in a C x C
    context, which the pixels of the other query, so that cost grows with the number of pixels and not its square.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = channels**-0.5
        self.optical = _Stream(channels)
        self.sar = _Stream(channels)
        self.merge = nn.Conv2d(2 * channels, channels, 1, bias=False)

    def forward(self, optical: Tensor, sar: Tensor) -> Tensor:
        """Fuse two N x C x H x W maps into one."""
        height, width = optical.shape[-2:]
        tokens_o, tokens_s = (x.flatten(2).transpose(1, 2) for x in (optical, sar))
        kept_o, query_o = self.optical.project(tokens_o).relu().chunk(2, dim=-1)
        kept_s, query_s = self.sar.project(tokens_s).relu().chunk(2, dim=-1)
        seen_o = query_o @ self._context(self.sar, query_s)
        seen_s = query_s @ self._context(self.optical, query_o)
        out_o = self.optical.norm(tokens_o + self.optical.join(torch.cat([kept_o, seen_o], dim=-1)))
        out_s = self.sar.norm(tokens_s + self.sar.join(torch.cat([kept_s, seen_s], dim=-1)))
        both = torch.cat([out_o, out_s], dim=-1).transpose(1, 2).reshape(optical.shape[0], -1, height, width)
        merged: Tensor = self.merge(both)
        return merged

    def _context(self, stream: _Stream, tokens: Tensor) -> Tensor:
        key, value = stream.key_value(tokens).chunk(2, dim=-1)
        context: Tensor = (key.transpose(1, 2) @ value * self.scale).softmax(dim=-2)
        return context


class MultiScaleAttention(nn.Module):
    """MS-CAM: a gate per channel and pixel from each pixel itself and, with `whole`, from the mean of the map.

    The bottleneck has a quarter of the channels, at least one. The mean is as published; without it a pixel does not
    depend on the window around it.
    """

    def __init__(self, channels: int, momentum: float = MOMENTUM, whole: bool = True) -> None:
        super().__init__()
        inner = max(channels // 4, 1)

        def bottleneck() -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(channels, inner, 1),
                nn.BatchNorm2d(inner, momentum=momentum),
                nn.ReLU(inplace=True),
                nn.Conv2d(inner, channels, 1),
                nn.BatchNorm2d(channels, momentum=momentum),
            )

        self.pixel = bottleneck()
        self.whole = bottleneck() if whole else None

    def forward(self, features: Tensor) -> Tensor:
        """Gated features, N x C x H x W."""
        gate: Tensor = self.pixel(features)
        if self.whole is not None:
            gate = gate + self.whole(features.mean(dim=(2, 3), keepdim=True))
        return features * gate.sigmoid()


class LocalFusion(nn.Module):
    """The mean of the maps of all modalities, plus gated convolutions over them at few channels.

    At C = 2048 the published rectification and fusion have seven times as many parameters as the encoder before them,
    and sum over whole maps: a cloud anywhere in a window changes every pixel of it. This module works on `inner`
    channels and neighbouring pixels; the gates of a pixel weight the channels of each modality there. The added part
    starts at zero (its last batch norm has zero scale), so that a pre-trained decoder first gets features like those
    it was trained on.
    """

    def __init__(self, channels: int, inner: int, modalities: Sequence[str]) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        for name in self.modalities:
            self.add_module(f"narrow_{name}", conv_norm_relu(channels, inner, 1))
        stacked = len(self.modalities) * inner
        self.gate = nn.Sequential(conv_norm_relu(stacked, inner, 3), nn.Conv2d(inner, stacked, 1))
        self.merge = conv_norm_relu(stacked, inner, 3)
        self.widen = nn.Conv2d(inner, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels, momentum=MOMENTUM)
        initialise(self)
        nn.init.zeros_(self.norm.weight)

    def forward(self, *maps: Tensor) -> Tensor:
        """Fuse N x C x H x W maps of the modalities, in their order, into one."""
        narrowed = [self.get_submodule(f"narrow_{n}")(m) for n, m in zip(self.modalities, maps, strict=True)]
        stacked = torch.cat(narrowed, dim=1)
        merged = self.merge(stacked * self.gate(stacked).sigmoid())
        added: Tensor = self.norm(self.widen(merged))
        return torch.relu(reduce(torch.add, maps) * (1 / len(maps)) + added)


class _Head(nn.Module):
    """The layers after the fusion in both variants: pyramid, attention and decoder.

    `published` adds all that makes a pixel depend on the window around it: image pooling, attention to the mean of
    the map, enlargement with aligned corners, and padding with zeros.
    """

    def __init__(self, encoder: Backbone, classes: int, config: ModelConfig, published: bool) -> None:
        super().__init__()
        self.factor = None if published else LOW_STRIDE
        momentum = PUBLISHED_MOMENTUM if published else MOMENTUM
        dropout = PUBLISHED_DROPOUT if published else config.dropout
        self.aspp = ASPP(encoder.high_channels, config, momentum, dropout, published)
        self.attention_high, self.attention_low = (
            MultiScaleAttention(channels, momentum=momentum, whole=published)
            for channels in (config.aspp_channels, encoder.low_channels)
        )
        shares = (dropout, LAST_DROPOUT)
        self.decoder = Decoder(
            config.aspp_channels, encoder.low_channels, classes, config, momentum, shares, published
        )
        if not published:
            start_undecided(self.decoder)

    def decode(self, high: Tensor, low: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits of `size` from the fused maps."""
        logits = self.decoder(self.attention_high(self.aspp(high)), self.attention_low(low))
        return enlarge(logits, size, self.factor)


class MSSNet(_Head):
    """The corrected network: an encoder for each modality, and fusion of all at few channels at two levels.

    No layer uses a window as a whole, so a place gets the same class in any window. `bands` counts those of each
    modality by name.
    """

    def __init__(self, bands: Mapping[str, int], classes: int, config: ModelConfig) -> None:
        encoder = Backbone(bands["optical"], config)
        super().__init__(encoder, classes, config, published=False)
        self.modalities = tuple(bands)
        self.backbone_optical = encoder
        for name in self.modalities[1:]:
            self.add_module(f"backbone_{name}", Backbone(bands[name], config))
        self.detail = Detail(sum(bands.values()), classes, config)
        self.fuse_high, self.fuse_low = (
            LocalFusion(channels, max(channels // BOTTLENECK, MIN_BOTTLENECK_CHANNELS), self.modalities)
            for channels in (encoder.high_channels, encoder.low_channels)
        )

    def detail_inputs(self, images: Mapping[str, Tensor]) -> list[Tensor]:
        """The images that the full-resolution branch takes."""
        return [images[name] for name in self.modalities]

    def forward(self, images: Mapping[str, Tensor], detail: Tensor | None = None) -> Tensor:
        """Logits N x K x H x W of N x C x H x W images of each modality; `detail`: those of the branch, if known."""
        maps = [self.get_submodule(f"backbone_{name}")(images[name]) for name in self.modalities]
        high, low = self.fuse_high(*(high for high, _ in maps)), self.fuse_low(*(low for _, low in maps))
        detail = self.detail(*self.detail_inputs(images)) if detail is None else detail
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
    """The published network as its code runs, without the layers that are built and never used.

    One encoder takes the images of all modalities; it has as many bands as the largest of them, and an image with
    fewer bands repeats them in turn (one SAR band is copied to all channels, as in the authors' data). The published
    fusion takes two maps; other modalities are fused one after the other to the result, in the place of SAR and by
    separate modules.
    """

    def __init__(self, bands: Mapping[str, int], classes: int, config: ModelConfig) -> None:
        most_bands = max(bands.values())
        encoder = Backbone(most_bands, config, PUBLISHED_MOMENTUM, published=True)
        super().__init__(encoder, classes, config, published=True)
        self.bands = most_bands
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
    """Repeat the bands of an N x C x H x W image in turn, 0, 1, ..., C-1, 0, 1, ..., up to `bands`."""
    if image.shape[1] == bands:
        return image
    return image[:, torch.arange(bands, device=image.device) % image.shape[1]]
