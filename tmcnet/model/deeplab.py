"""Atrous spatial pyramid pooling and the decoder of DeepLabv3+ (Chen et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tmcnet.config import ModelConfig
from tmcnet.model.backbone import Padding, convolution, edge_padding, initialise
from tmcnet.model.texture import PixelFeatures

DILATION_STRIDE = 16
"""Output stride for which the dilations are given; at stride 8 the same reach on the ground takes twice as much."""

LOW_STRIDE = 4
"""Input pixels per pixel of the first stage's map, which the decoder works at."""

LOW_CHANNELS = 48
"""Channels to which the decoder reduces the first stage's map."""


class ScalarNorm(nn.BatchNorm2d):
    """Batch norm that falls back on its running statistics where a batch has a single value per channel.

    That happens in the image-pooling branch with one image: its variance is not defined, and torch would raise.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise N x C x H x W."""
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


def conv_norm_relu(
    inputs: int, outputs: int, kernel: int, momentum: float, dilation: int = 1, padding: Padding = "replicate"
) -> nn.Sequential:
    """A convolution that keeps the size, batch norm and ReLU."""
    return nn.Sequential(
        convolution(inputs, outputs, kernel, 1, dilation, padding),
        nn.BatchNorm2d(outputs, momentum=momentum),
        nn.ReLU(inplace=True),
    )


def image_size(images: Mapping[str, Tensor]) -> tuple[int, int]:
    """Rows and columns of the images of all modalities, which are the same."""
    height, width = next(iter(images.values())).shape[-2:]
    return height, width


def enlarge(x: Tensor, size: tuple[int, int], factor: int | None) -> Tensor:
    """Bilinear enlargement of an N x C x h x w map.

    Args:
        x: The map.
        size: Rows and columns wanted; with a factor at most `factor` times those there are.
        factor: Small pixel k lies exactly at `factor` times k, which is where the strided convolutions of the encoder
            have their centres, and the last one is repeated beyond. So a place in the image gets the same value in
            whatever window it is seen. None: the corners of both maps are aligned as in the published networks, which
            stretches a map by an amount that depends on its size.
    """
    if factor is None:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=True)
    padded = F.pad(x, (0, 1, 0, 1), mode="replicate")
    height, width = x.shape[-2] * factor + 1, x.shape[-1] * factor + 1
    larger = F.interpolate(padded, size=(height, width), mode="bilinear", align_corners=True)
    return larger[..., : size[0], : size[1]]


class Detail(nn.Module):
    """What the pixels themselves and their near surroundings say, at full resolution, added to the decoder's logits.

    The decoder works at a quarter of the resolution, which loses whatever is narrower than four pixels: roads,
    houses, the edges of fields. Two small convolutions on the bands and on their local means and deviations (the
    features of the pixel-wise baselines) give it back; the statistics tame speckle, which short trainings would not
    learn to average. The last layer starts at zero, so that training begins from the decoder's logits. Not part of
    the published networks.

    Args:
        bands: Bands of all images.
        classes: K.
        config: `detail_channels` (0 leaves the branch out) and `texture_windows`.
        batch_norm_momentum: Momentum in torch's sense.
    """

    def __init__(self, bands: int, classes: int, config: ModelConfig, batch_norm_momentum: float) -> None:
        super().__init__()
        channels = config.detail_channels
        self.layers: nn.Sequential | None = None
        if channels == 0:
            return
        self.features = PixelFeatures(config.texture_windows)
        inputs = self.features.count(bands)
        self.layers = nn.Sequential(
            nn.BatchNorm2d(inputs, momentum=batch_norm_momentum),
            conv_norm_relu(inputs, channels, 1, batch_norm_momentum),
            conv_norm_relu(channels, channels, 3, batch_norm_momentum),
            nn.Conv2d(channels, classes, 1),
        )
        initialise(self)
        nn.init.zeros_(self.layers[-1].weight)  # type: ignore[arg-type]

    def forward(self, *images: Tensor) -> Tensor:
        """Logits N x K x H x W of images N x C x H x W; a scalar 0 without channels."""
        if self.layers is None:
            return images[0].new_zeros(())
        logits: Tensor = self.layers(self.features(*images))
        return logits


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: context at several scales, fused by a 1 x 1 convolution.

    Args:
        in_channels: Channels of the deepest map.
        config: `aspp_channels`, `dilations` and `output_stride`.
        batch_norm_momentum: Momentum in torch's sense.
        dropout: Share of values dropped at the end.
        image_pooling: Add the mean over the whole image, as published.
        padding: What convolutions see beyond the edge.
    """

    def __init__(
        self,
        in_channels: int,
        config: ModelConfig,
        batch_norm_momentum: float,
        dropout: float,
        image_pooling: bool,
        padding: Padding = "replicate",
    ) -> None:
        super().__init__()
        channels = config.aspp_channels
        dilations = [d * DILATION_STRIDE // config.output_stride for d in config.dilations]
        self.pyramid = nn.ModuleList(
            [conv_norm_relu(in_channels, channels, 1, batch_norm_momentum)]
            + [conv_norm_relu(in_channels, channels, 3, batch_norm_momentum, d, padding) for d in dilations]
        )
        self.pooled: nn.Sequential | None = None
        if image_pooling:
            self.pooled = nn.Sequential(
                convolution(in_channels, channels, 1),
                ScalarNorm(channels, momentum=batch_norm_momentum),
                nn.ReLU(inplace=True),
            )
        self.fuse = conv_norm_relu((4 + image_pooling) * channels, channels, 1, batch_norm_momentum)
        self.dropout = nn.Dropout(dropout)
        self.out_channels = channels
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map N x in_channels x h x w to N x aspp_channels x h x w."""
        scales = [branch(x) for branch in self.pyramid]
        if self.pooled is not None:
            scales.append(self.pooled(F.adaptive_avg_pool2d(x, 1)).expand(-1, -1, *x.shape[-2:]))
        y: Tensor = self.dropout(self.fuse(torch.cat(scales, dim=1)))
        return y


class Decoder(nn.Module):
    """The DeepLabv3+ decoder: joins deep context with the sharper first-stage map.

    Args:
        aspp_channels: Channels of the deep map.
        low_channels: Channels of the first-stage map.
        out_channels: Channels of the result; its 1 x 1 layer is named `output`.
        config: `decoder_channels`.
        batch_norm_momentum: Momentum in torch's sense.
        dropout: Shares dropped after the first and the second 3 x 3 convolution.
        published: Enlarge with aligned corners and pad with zeros, as the published networks do.
    """

    def __init__(
        self,
        aspp_channels: int,
        low_channels: int,
        out_channels: int,
        config: ModelConfig,
        batch_norm_momentum: float,
        dropout: tuple[float, float] = (0.0, 0.0),
        published: bool = False,
    ) -> None:
        super().__init__()
        self.factor = None if published else config.output_stride // LOW_STRIDE
        padding = edge_padding(published)
        reduced, channels = min(LOW_CHANNELS, low_channels), config.decoder_channels
        self.reduce = conv_norm_relu(low_channels, reduced, 1, batch_norm_momentum)
        self.first = conv_norm_relu(aspp_channels + reduced, channels, 3, batch_norm_momentum, padding=padding)
        self.second = conv_norm_relu(channels, channels, 3, batch_norm_momentum, padding=padding)
        self.first_dropout, self.second_dropout = nn.Dropout(dropout[0]), nn.Dropout(dropout[1])
        self.output = nn.Conv2d(channels, out_channels, 1)
        initialise(self)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Decode.

        Args:
            high: N x aspp_channels x h x w.
            low: N x low_channels x H/4 x W/4.

        Returns:
            N x out_channels x H/4 x W/4.
        """
        joined = torch.cat([enlarge(high, (low.shape[-2], low.shape[-1]), self.factor), self.reduce(low)], dim=1)
        deep = self.second_dropout(self.second(self.first_dropout(self.first(joined))))
        y: Tensor = self.output(deep)
        return y
