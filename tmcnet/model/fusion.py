"""Fusion of optical and SAR feature maps: rectification, cross-attention and attention over two scales.

`FeatureRectify`, `FeatureFusion` and `MultiScaleAttention` compute what MSSNet (Ye et al., IEEE TGRS 2025) computes;
the first two descend from CMX (Zhang et al., 2023), the third from attentional feature fusion (Dai et al., 2021).
`LocalFusion` is this project's own: gates and convolutions at few channels, beside a plain mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor, nn

from tmcnet.model.backbone import initialise
from tmcnet.model.deeplab import conv_norm_relu


class FeatureRectify(nn.Module):
    """Each sensor's features are corrected by the other's, first per channel, then per pixel.

    Two N x C x H x W maps go in and come out. Every correction adds a half of the other sensor's map, gated between 0
    and 1; the pixel gates are computed from maps that the channel gates have already corrected.

    Args:
        channels: C.
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
        """Corrected (optical, SAR), each N x C x H x W."""
        both = torch.cat([optical, sar], dim=1)
        pooled = torch.cat([both.mean(dim=(2, 3)), both.amax(dim=(2, 3))], dim=1)
        to_sar, to_optical = self.channel_gate(pooled).sigmoid()[..., None, None].split(self.channels, dim=1)
        optical_1 = optical + self.strength * to_optical * sar
        sar_1 = sar + self.strength * to_sar * optical
        to_sar, to_optical = self.pixel_gate(torch.cat([optical_1, sar_1], dim=1)).sigmoid().split(1, dim=1)
        return optical_1 + self.strength * to_optical * sar, sar_1 + self.strength * to_sar * optical


class _Stream(nn.Module):
    """One sensor's projections inside `FeatureFusion`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(channels, 2 * channels)
        self.key_value = nn.Linear(channels, 2 * channels, bias=False)
        self.join = nn.Linear(2 * channels, channels)
        self.norm = nn.LayerNorm(channels)


class FeatureFusion(nn.Module):
    """Linear cross-attention between the sensors, then a 1x1 convolution that makes one map of two.

    Attention is of the efficient kind (Shen et al., 2021): keys and values of one sensor are summed up in a C x C
    context, which the other sensor's pixels query, so that cost grows with the number of pixels and not its square.

    Args:
        channels: C.
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
    """MS-CAM: a gate per channel and pixel from each pixel itself and from the mean of the map.

    Args:
        channels: C of the N x C x H x W map.
        ratio: The bottleneck has C / ratio channels, at least one.
        batch_norm_momentum: Momentum of the batch norms, in the PyTorch sense.
        whole: Look at the mean of the map, as published; without it a pixel does not depend on the window around it.
    """

    def __init__(self, channels: int, ratio: int = 4, batch_norm_momentum: float = 0.1, whole: bool = True) -> None:
        super().__init__()
        inner = max(channels // ratio, 1)

        def bottleneck() -> nn.Sequential:
            return nn.Sequential(
                nn.Conv2d(channels, inner, 1),
                nn.BatchNorm2d(inner, momentum=batch_norm_momentum),
                nn.ReLU(inplace=True),
                nn.Conv2d(inner, channels, 1),
                nn.BatchNorm2d(channels, momentum=batch_norm_momentum),
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
    """The mean of the maps of all modalities plus what gated convolutions over them add to it at few channels.

    At C = 2048 the published rectification and fusion hold five times as many parameters as the encoder they follow,
    and they sum up whole maps: a cloud anywhere in a window changes every pixel of it. Here everything works on
    `inner` channels and on neighbouring pixels: each pixel's gates say, channel by channel, how far each
    modality is to be trusted there. The added part starts at zero (its last batch norm has zero scale), so that a
    pre-trained decoder first meets features like those it was trained on.

    Args:
        channels: C of the N x C x H x W maps.
        inner: Channels of the bottleneck.
        modalities: Names of the modalities, in the order in which their maps come.
        batch_norm_momentum: Momentum of the batch norms, in the PyTorch sense.
    """

    def __init__(
        self, channels: int, inner: int, modalities: Sequence[str], batch_norm_momentum: float = 0.1
    ) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        for name in self.modalities:
            self.add_module(f"narrow_{name}", conv_norm_relu(channels, inner, 1, batch_norm_momentum))
        stacked = len(self.modalities) * inner
        self.gate = nn.Sequential(
            conv_norm_relu(stacked, inner, 3, batch_norm_momentum), nn.Conv2d(inner, stacked, 1)
        )
        self.merge = conv_norm_relu(stacked, inner, 3, batch_norm_momentum)
        self.widen = nn.Conv2d(inner, channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels, momentum=batch_norm_momentum)
        initialise(self)
        nn.init.zeros_(self.norm.weight)

    def forward(self, *maps: Tensor) -> Tensor:
        """Fuse N x C x H x W maps of the modalities, in their order, into one."""
        narrowed = [self.get_submodule(f"narrow_{n}")(m) for n, m in zip(self.modalities, maps, strict=True)]
        stacked = torch.cat(narrowed, dim=1)
        merged = self.merge(stacked * self.gate(stacked).sigmoid())
        added: Tensor = self.norm(self.widen(merged))
        return torch.relu(reduce(torch.add, maps) * (1 / len(maps)) + added)
