"""Convolutions that see the last pixels of a map repeated beyond its edge, at less than their full cost."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_WORK = 2 / 3
"""Share of the multiplications of the padded map up to which convolving tap by tap was faster on a CPU."""


class _Reach(NamedTuple):
    """What one tap of three sees of an axis: a stretch of it, whose first or last place is then repeated."""

    seen: slice
    repeated: tuple[int, int]


def _reaches(length: int, dilation: int) -> tuple[_Reach, _Reach, _Reach]:
    """Of the tap before, on and behind each place of an axis."""
    beyond = min(dilation, length - 1)
    kept = length - beyond
    return (
        _Reach(slice(0, kept), (beyond, 0)),
        _Reach(slice(0, length), (0, 0)),
        _Reach(slice(beyond, length), (0, beyond)),
    )


def tapwise_work(height: int, width: int, dilation: int) -> float:
    """Multiplications of `tapwise_convolution` as a share of those of a convolution of the padded map."""
    shares = (1 + 2 * (length - min(dilation, length - 1)) / length for length in (height, width))
    rows, columns = shares
    return rows * columns / 9


def tapwise_convolution(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """A 3 x 3 convolution with replicate padding as the sum of its nine taps, each on the pixels that it sees.

    Padded by a dilation that is nearly as wide as the map, most of what the outer taps see is the same edge over and
    over; a tap is a 1 x 1 convolution, which commutes with repeating the edge.

    Args:
        x: N x C x H x W.
        weight: K x C x 3 x 3.
        dilation: As of the convolution, whose padding is as wide.

    Returns:
        N x K x H x W.
    """
    taps = weight.flatten(2).unbind(2)
    total = F.conv2d(x, taps[4][..., None, None])
    for place, rows in enumerate(_reaches(x.shape[-2], dilation)):
        band = x if place == 1 else x[..., rows.seen, :]
        for other, columns in enumerate(_reaches(x.shape[-1], dilation)):
            if place == other == 1:
                continue
            part = band if other == 1 else band[..., columns.seen]
            part = F.conv2d(part, taps[3 * place + other][..., None, None])
            total = total + F.pad(part, columns.repeated + rows.repeated, mode="replicate")
    return total


class ReplicateConv2d(nn.Conv2d):
    """A 3 x 3 convolution of stride 1 with replicate padding, which takes the cheaper of two equal ways.

    Args:
        inputs: Channels in.
        outputs: Channels out.
        dilation: Pixels between taps, and width of the padding.
    """

    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__(
            inputs, outputs, 3, padding=dilation, dilation=dilation, bias=False, padding_mode="replicate"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map N x inputs x H x W to N x outputs x H x W."""
        dilation = self.dilation[0]
        # An exported model takes maps of any size, for which there is one way.
        if torch.compiler.is_exporting() or tapwise_work(x.shape[-2], x.shape[-1], dilation) > MOST_WORK:
            return super().forward(x)
        return tapwise_convolution(x, self.weight, dilation)
