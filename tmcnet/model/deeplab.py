"""Spatial pyramid pooling and decoder of DeepLabv3+ (Chen et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tmcnet.config import ModelConfig
from tmcnet.config.training import deep_context_px
from tmcnet.model.backbone import (
    LOW_STRIDE,
    MOMENTUM,
    OUTPUT_STRIDE,
    Backbone,
    Conv2d,
    convolution,
    cut_windows,
    initialise,
    resampled_convolution,
    resampled_windows,
    taps_of_enlarged,
)
from tmcnet.model.context import enlarge

LOW_CHANNELS = 48
"""Channels to which the decoder reduces the first stage's map."""
PUBLISHED_DROPOUT = 0.5
"""Share of the encoder's output that the published networks drop in place of `model.dropout`."""
LAST_DROPOUT = 0.1
"""Share of the decoder's last map that is dropped when it predicts classes."""


def conv_norm_relu(
    inputs: int, outputs: int, kernel: int, momentum: float = MOMENTUM, dilation: int = 1, published: bool = False
) -> nn.Sequential:
    """Build a convolution that keeps the size, batch norm and ReLU."""
    return nn.Sequential(
        convolution(inputs, outputs, kernel, 1, dilation, published),
        nn.BatchNorm2d(outputs, momentum=momentum),
        nn.ReLU(inplace=True),
    )


def image_size(images: Mapping[str, Tensor]) -> tuple[int, int]:
    """Rows and columns of the images of all modalities, which are the same."""
    height, width = next(iter(images.values())).shape[-2:]
    return height, width


def stack_bands(images: Mapping[str, Tensor], modalities: Sequence[str]) -> Tensor:
    """Concatenate the bands of some modalities, N x C x H x W each."""
    bands = [images[name] for name in modalities]
    return bands[0] if len(bands) == 1 else torch.cat(bands, dim=1)


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: context at several scales, fused by a 1 x 1 convolution.

    Args:
        in_channels: Channels of the deepest map.
        config: `aspp_channels` and `dilations`.
        momentum: Batch-norm momentum.
        dropout: Share of values dropped at the end.
        published: Pad with zeros and add the mean over the whole map as one more scale. With it a pixel depends on
            the window it is seen in, and on every cloud there.
    """

    def __init__(
        self, in_channels: int, config: ModelConfig, momentum: float, dropout: float, published: bool = False
    ) -> None:
        super().__init__()
        channels = config.aspp_channels
        self.pyramid = nn.ModuleList(
            [conv_norm_relu(in_channels, channels, 1, momentum)]
            + [conv_norm_relu(in_channels, channels, 3, momentum, d, published) for d in config.dilations]
        )
        self.pooled = conv_norm_relu(in_channels, channels, 1, momentum) if published else None
        self.fuse = conv_norm_relu((4 + published) * channels, channels, 1, momentum)
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


def deep_context(network: nn.Module) -> int:
    """Distance in pixels beyond which the edge of an image hardly matters to encoder and pyramid; 0 without them.

    There the probabilities of trained networks differ by less than 0.01 at the 99.9th percentile from those of a
    larger image (benchmarks/README.md, maps of whole scenes).
    """
    modules = list(network.modules())
    if not any(isinstance(module, Backbone) for module in modules):
        return 0
    layers = [layer for module in modules if isinstance(module, ASPP) for layer in module.modules()]
    dilations = [layer.dilation[0] for layer in layers if isinstance(layer, nn.Conv2d)]
    return deep_context_px(max(dilations, default=3))


class Decoder(nn.Module):
    """The DeepLabv3+ decoder: joins deep context with the sharper first-stage map.

    Args:
        aspp_channels: Channels of the deep map.
        low_channels: Channels of the first-stage map.
        out_channels: Channels of the result; its 1 x 1 layer is named `output`.
        config: `decoder_channels`.
        momentum: Batch-norm momentum.
        dropout: Shares dropped after the first and the second 3 x 3 convolution.
        published: Enlarge with aligned corners and pad with zeros, as the published networks do.
    """

    def __init__(
        self,
        aspp_channels: int,
        low_channels: int,
        out_channels: int,
        config: ModelConfig,
        momentum: float = MOMENTUM,
        dropout: tuple[float, float] = (0.0, 0.0),
        published: bool = False,
    ) -> None:
        super().__init__()
        self.factor = None if published else OUTPUT_STRIDE // LOW_STRIDE
        reduced, channels = min(LOW_CHANNELS, low_channels), config.decoder_channels
        self.reduce = conv_norm_relu(low_channels, reduced, 1, momentum)
        self.first = conv_norm_relu(aspp_channels + reduced, channels, 3, momentum, published=published)
        self.second = conv_norm_relu(channels, channels, 3, momentum, published=published)
        self.first_dropout, self.second_dropout = nn.Dropout(dropout[0]), nn.Dropout(dropout[1])
        self.output = Conv2d(channels, out_channels, 1)
        initialise(self)

    def forward(self, high: Tensor, low: Tensor) -> Tensor:
        """Decode.

        Args:
            high: N x aspp_channels x h x w.
            low: N x low_channels x H/4 x W/4.

        Returns:
            N x out_channels x H/4 x W/4.
        """
        joined = self.first_dropout(self._join(high, self.reduce(low)))
        y: Tensor = self.output(self.second_dropout(self.second(joined)))
        return y

    def windows(self, high: Tensor, low: Tensor, corners: Tensor, size: int) -> Tensor:
        """Decode square windows of the map instead of the whole map, at little more than their share of its cost.

        The result is what `forward` gives there, except that batch norms see the cells of the windows only. Not for
        `published`.

        Args:
            high: N x aspp_channels x h x w.
            low: N x low_channels x H/4 x W/4.
            corners: First column and row of each window, N x P x 2, such that it is inside the map.
            size: Rows and columns of a window.

        Returns:
            N*P x out_channels x size x size, image by image.
        """
        assert self.factor is not None
        low = self.reduce(low)
        deep, sharp = self._first_weights(high)
        # the second layer reads a ring of one cell around a window, the first layer one of two
        columns, rows = (c[..., None] + torch.arange(-2, size + 2, device=c.device) for c in corners.unbind(-1))
        sharp_part = F.conv2d(cut_windows(low, rows, columns), sharp)
        first = (rows[..., 1:2], columns[..., 1:2])
        rows, columns = rows[..., 1:-1].clamp(0, low.shape[-2] - 1), columns[..., 1:-1].clamp(0, low.shape[-1] - 1)
        # beyond the edge of the map the second layer sees the last cells of the first one repeated
        inside = [(cells - start).flatten(0, 1)[:, None] for cells, start in zip((rows, columns), first, strict=True)]
        taps = [
            taps_of_enlarged(small, large, self.factor).to(cells.device)[cells]
            for small, large, cells in zip(high.shape[-2:], low.shape[-2:], (rows, columns), strict=True)
        ]
        joined = self.first[1:](resampled_windows(high, deep, *taps) + cut_windows(sharp_part, *inside))
        weight = self.second[0].weight
        assert isinstance(weight, Tensor)
        second = self.second[1:](F.conv2d(self.first_dropout(joined), weight))
        y: Tensor = self.output(self.second_dropout(second))
        return y

    def _join(self, high: Tensor, low: Tensor) -> Tensor:
        """The first layer of the enlarged deep map beside the first stage's map."""
        size = low.shape[-2], low.shape[-1]
        if self.factor is None or torch.compiler.is_exporting():
            joined: Tensor = self.first(torch.cat([enlarge(high, size, self.factor), low], dim=1))
            return joined
        deep, sharp = self._first_weights(high)
        # at a sixteenth of the pixels: the deep map has most of the channels
        taps = [taps_of_enlarged(*lengths, self.factor) for lengths in zip(high.shape[-2:], size, strict=True)]
        padded = F.pad(low, (1, 1, 1, 1), mode="replicate")
        total = resampled_convolution(high, deep, *taps) + F.conv2d(padded, sharp)
        y: Tensor = self.first[1:](total)
        return y

    def _first_weights(self, high: Tensor) -> tuple[Tensor, Tensor]:
        """The first layer's weights of the deep map and of the first stage's map."""
        weight = self.first[0].weight
        assert isinstance(weight, Tensor)
        deep, sharp = torch.split(weight, [high.shape[1], weight.shape[1] - high.shape[1]], dim=1)
        return deep, sharp


def start_undecided(decoder: Decoder) -> None:
    """Set the layer that predicts classes to zero, in place: training begins from the logits of the other branch.

    With the weights that suit hidden layers, the first logits are large, and a short training spends a fifth of its
    steps on unlearning them.
    """
    nn.init.zeros_(decoder.output.weight)
